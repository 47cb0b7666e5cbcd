"""Tiny runs of every algorithm that shares its work, each a function of a folder and `run.distributed`.

Started by `test_distributed.py`, alone and as one of two processes: `torchrun ... cases.py FOLDER`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llm_align.data.examples import Example
from llm_align.data.loader import Batches
from llm_align.data.loader import Config as Data
from llm_align.data.tokenizer import byte_tokenizer
from llm_align.data.tokens import Encoded, encode
from llm_align.feedback import reward_model
from llm_align.feedback.rewards import Reward, Rewards
from llm_align.feedback.scorer import Scorer
from llm_align.models import optim
from llm_align.models.causal_lm import Small, small_causal_lm
from llm_align.models.generation import Generated, generate
from llm_align.offline import dpo, sft
from llm_align.online import best_of_n, grpo, ppo, reinforce, rollout, trpo
from llm_align.online.reference import KL
from rl_core import distributed, run
from rl_core import ppo as core

RATE = optim.Config(lr=1e-3, schedule="constant")  # whatever the number of steps
KEPT = KL(coef=0.1, estimator="k1", place="reward", target=0.5, horizon=64)
MODES = ("ddp", "fsdp2")


@dataclass
class Root:
    """What a script's configuration is to a run."""

    run: run.Config


def policy() -> Any:
    torch.manual_seed(distributed.rank())  # the first process' weights must become everyone's
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "max_length": 64}
    return small_causal_lm(Small(vocab_size=258, eos_token_id=0, pad_token_id=1, **sizes)).eval()


def pairs(num: int = 11) -> list[Encoded]:
    """An odd number of pairs of different lengths."""
    rows = [Example(prompt=f"{n} + 1 =", responses=[str(n + 1), "x" * (1 + n % 4)]) for n in range(num)]
    return encode(byte_tokenizer(), rows, max_length=32)


def ratings() -> list[Encoded]:
    """Twelve: KTO's baseline is a batch's, and one process would cut a last batch of one that two share."""
    rows = [Example(prompt=f"{n} =", responses=[str(n)], labels=[n % 3 > 0]) for n in range(12)]
    return encode(byte_tokenizer(), rows, max_length=32)


def offline(module: Any, cfg: Any, items: list[Encoded], model: Callable[[], Any] = policy) -> Any:
    def train(settings: run.Config) -> Any:
        with run.Run(settings, config=Root(run=settings), shared=True) as own:
            data, held_out = (
                Batches(part, Data(source="made here", batch_size=5), seed=0) for part in (items[:8], items)
            )
            return module.train(cfg, model(), data, held_out, own)

    return train


class ByPrompt:
    """An engine whose draws depend on the prompt alone, so that one process and two draw the same."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def generate(self, prompts: Any, sampling: Any, *, generator: Any, num_samples: int = 1) -> Generated:
        from llm_align.data.batches import make_responses

        torch.randint(2**62, (1,), generator=generator)  # as `distributed.fork` moves it
        rows, scores, ended = [], [], []
        for prompt in prompts:
            seeded = torch.Generator().manual_seed(sum(prompt))
            drawn = generate(self.model, [prompt], sampling, generator=seeded, num_samples=num_samples)
            rows += drawn.responses.response_lists()
            scores += [
                s[: len(r)] for s, r in zip(drawn.log_prob, drawn.responses.response_lists(), strict=True)
            ]
            ended.append(drawn.ended)
        index = [p for p in range(len(prompts)) for _ in range(num_samples)]
        log_prob = torch.nn.utils.rnn.pad_sequence(scores, batch_first=True)
        return Generated(
            responses=make_responses(prompts, rows, index), log_prob=log_prob, ended=torch.cat(ended)
        )


def vowels(completion_ids: list[list[int]]) -> list[float]:
    return [sum(token % 5 == 0 for token in ids) / 6 for ids in completion_ids]


def online(module: Any, cfg: Any, **options: Any) -> Any:
    def train(settings: run.Config) -> Any:
        tokenizer = byte_tokenizer()
        rows = [Example(prompt=f"say {n}", responses=[], columns={}) for n in range(5)]
        model = policy()
        task = rollout.Task(
            prompts=encode(tokenizer, rows, max_length=32),
            tokenizer=tokenizer,
            rewards=Rewards([Reward(name="vowels", function=vowels)]),
            config=rollout.Config(prompts=3, group_size=4, max_new_tokens=6),
            engine=ByPrompt(model),
        )
        shown = {"demonstrations": pairs()} if options.get("ptx") else {}
        with run.Run(settings, config=Root(run=settings), shared=True) as own:
            return module.train(cfg, task, model, own, **shown)

    return train


def scorer() -> Scorer:
    return Scorer(policy(), "causal")


PPO = core.Config(epochs=2, minibatch_size=5, value_clip=0.2, value_coef=0.1, max_grad_norm=1.0)
CASES: dict[str, Any] = {
    "sft": offline(sft, sft.Config(optim=RATE, accumulate=2), pairs()),
    "dpo": offline(dpo, replace(dpo.MEMBERS["rpo"], optim=RATE, cache="", accumulate=2), pairs()),
    "tr_dpo": offline(dpo, replace(dpo.MEMBERS["tr_dpo"], optim=RATE, cache="", sync_every=1), pairs()),
    "kto": offline(dpo, replace(dpo.MEMBERS["kto"], optim=RATE, cache="", accumulate=2), ratings()),
    "bco": offline(dpo, replace(dpo.MEMBERS["bco"], optim=RATE, cache="", accumulate=2), ratings()),
    "aot": offline(dpo, replace(dpo.MEMBERS["aot"], optim=RATE, cache="", accumulate=2), pairs()),
    "aot_unpaired": offline(dpo, replace(dpo.MEMBERS["aot_unpaired"], optim=RATE, cache=""), pairs()),
    "reward": offline(
        reward_model, reward_model.Config(optim=RATE, centering=0.1, lm=0.1, l2=0.1), pairs(), scorer
    ),
    "grpo": online(grpo, grpo.Config(lr=1e-3, epochs=2, minibatches=2, micro_batch_size=2, kl=KL(coef=0.1))),
    "rloo": online(grpo, grpo.Config(lr=1e-3, advantage="leave_one_out", kl=KEPT, refill=1)),
    "ppo": online(ppo, ppo.Config(lr=1e-3, critic_lr=1e-3, kl=KEPT, ppo=PPO, ptx_coef=0.1), ptx=True),
    "a2c": online(reinforce, reinforce.Config(lr=1e-3, baseline="value", whiten=True, entropy_coef=0.1)),
    "minimum_risk": online(reinforce, reinforce.Config(lr=1e-3, objective="minimum_risk", kl=KL(coef=0.1))),
    "best_of_n": online(best_of_n, best_of_n.Config(lr=1e-3, minibatches=2)),
    "trpo": online(trpo, trpo.Config(kl=KEPT)),
}
SHARDED = ("sft", "dpo", "reward", "grpo", "ppo")  # the paths through a sharded model
RUNS = [("ddp", name) for name in CASES] + [("fsdp2", name) for name in SHARDED]


def settings(folder: Path, **options: Any) -> run.Config:
    return run.Config(
        dir=str(folder),
        device="cpu",
        tensorboard=False,
        **{"steps": 3, "log_every": 1, "eval_every": 3, "checkpoint_every": 2} | options,
    )


def weights(agent: Any) -> dict[str, torch.Tensor]:
    """Whole weights by name, of a plain or a sharded agent."""
    return {name: distributed.full(value.detach()).clone() for name, value in agent.named_parameters()}


def main(root: Path) -> None:
    """Every run; then on with those that one process has begun."""
    for mode, name in RUNS:
        keep(CASES[name](settings(root / mode / name, distributed=mode)), root / f"{mode}-{name}.safetensors")
    for mode in MODES:
        for name in ("dpo", "grpo"):
            begun = settings(root / "begun" / f"{mode}-{name}", distributed=mode, resume=True)
            keep(CASES[name](begun), root / f"{mode}-{name}-resumed.safetensors")


def keep(agent: Any, file: Path) -> None:
    found = weights(agent)
    if distributed.rank() == 0:
        save_file(found, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
