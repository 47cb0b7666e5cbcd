"""Training steps against TRL's trainers, same weights and same batch: DPO and the listwise reward model.

    python -m benchmarks.bench_trl [dpo] [reward] --threads 2 --rounds 5

DPO: 16 HH pairs of up to 512 tokens, as they stand in the file. Reward model: 2 HH prompts with K = 6
ranked answers (their own two, and those of the pairs after them); TRL has pairs only, so its trainer runs the
15 pairs of each ranking. The equality check is of the 30 pairwise losses of our 12 scores; what is timed is
our Plackett-Luce step.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import LlamaForSequenceClassification
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from benchmarks import record, trl_peer
from llm_align.data import loader
from llm_align.data.loader import make_batch
from llm_align.data.tokens import Encoded
from llm_align.feedback import reward_model
from llm_align.feedback.scorer import Scorer
from llm_align.models import optim
from llm_align.offline import dpo
from llm_align.offline.reference import References
from rl_core.preferences import bradley_terry_loss

PAIRS, PROMPTS, RANKED = 16, 2, 6
TARGETS = {"default": 3.0, "tuned": 1.5}
LR = 1e-5
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], metavar="task", help=", ".join(TASKS))
    trl_peer.add_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trl_peer.quiet()
    tokenizer, pairs = trl_peer.hh_pairs(PAIRS, args.data)
    for task in args.tasks or TASKS:
        rows = [TASKS[task](side, tokenizer, pairs, args) for side in trl_peer.SIDES]
        record.write(f"trl_{task}", rows)


def optimizer_like_trl() -> optim.Config:
    """AdamW and its linear schedule as the Trainer has them."""
    return optim.Config(lr=LR, betas=(0.9, 0.999), schedule="linear")


def dpo_trainer(side: str, tokenizer: Any, pairs: list[Encoded], steps: int, **model: Any) -> Any:
    """TRL's DPO trainer on `pairs`, all of them in every step."""
    policy, reference = trl_peer.policy_and_reference(tokenizer, **model)
    columns = {
        "prompt_ids": [pair.prompt for pair in pairs],
        "chosen_ids": [pair.responses[0] for pair in pairs],
        "rejected_ids": [pair.responses[1] for pair in pairs],
    }
    size = {"per_device_train_batch_size": len(pairs), "learning_rate": LR}
    cached = {"precompute_ref_log_probs": True} if side == "tuned" else {}
    return trl_peer.observed(DPOTrainer)(
        model=policy,
        ref_model=reference,
        args=trl_peer.arguments(DPOConfig, side, steps, **size, **cached),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )


class DpoStep:
    """Our DPO step on `pairs`; the reference was asked before, as `dpo.train` does; returns the loss."""

    def __init__(
        self, tokenizer: Any, pairs: list[Encoded], steps: int, device: torch.device = CPU, **model: Any
    ) -> None:
        policy, reference = (m.to(device) for m in trl_peer.policy_and_reference(tokenizer, **model))
        self.cfg = dpo.Config(optim=optimizer_like_trl(), cache="")
        self.agent = dpo.Agent(policy.train(), self.cfg)
        options: dict[str, Any] = {"precision": "float32", "device": device}
        self.references = References(reference, pairs, mismatched=False, folder=None, **options)
        sizes = loader.Config(batch_size=len(pairs), max_tokens=10**9)
        self.batches = loader.Batches(pairs, sizes, seed=0, device=device)
        self.steps, self.count = steps, 0

    def __call__(self) -> float:
        self.count += 1
        optim.schedule(self.agent.optimizer, self.cfg.optim, self.count, self.steps)
        batch = self.references(self.batches.next())
        return float(dpo.update(self.agent, [batch], self.cfg)["loss"])


def compare_dpo(side: str, tokenizer: Any, pairs: list[Encoded], args: argparse.Namespace) -> record.Row:
    """Time one DPO step against TRL's."""
    steps = args.rounds + 1
    trainer = dpo_trainer(side, tokenizer, pairs, steps)
    turns = trl_peer.train_in_turns(trainer, DpoStep(tokenizer, pairs, steps), trl_peer.clock_of(args))
    if side == "tuned":
        trl_peer.assert_equal("DPO", turns.losses, trainer.losses)
    return show(f"DPO step, 7M parameters, {PAIRS} HH pairs", side, turns, pairs, args)


def rankings(pairs: list[Encoded]) -> list[Encoded]:
    """`PROMPTS` prompts with `RANKED` answers each: their own two, and those of the pairs after them."""
    ranked = []
    for number in range(PROMPTS):
        group = pairs[number * RANKED // 2 : (number + 1) * RANKED // 2]
        own = group[0]
        example = replace(own.example, columns={"ranks": list(range(RANKED))})
        ranked.append(
            Encoded(
                prompt=own.prompt[-192:],  # other prompts' answers must fit as well
                responses=[response for pair in group for response in pair.responses],
                loss_masks=[mask for pair in group for mask in pair.loss_masks],
                example=example,
            )
        )
    return ranked


def scorer_like(trunk: Any, model: Any) -> Scorer:
    """Our scorer on `trunk`, with the weights of a sequence classifier."""
    trunk.model.load_state_dict(model.model.state_dict())
    scorer = Scorer(trunk, "causal")
    with torch.no_grad():
        scorer.output.weight.copy_(model.score.weight)
    return scorer.train()


def compare_reward(side: str, tokenizer: Any, pairs: list[Encoded], args: argparse.Namespace) -> record.Row:
    """Time a listwise step against TRL's on all pairs of the same rankings."""
    ranked = rankings(pairs)
    trunk, _ = trl_peer.policy_and_reference(tokenizer)
    trunk.config.num_labels = 1
    model = LlamaForSequenceClassification(trunk.config)
    columns = {
        "chosen_ids": [r.prompt + r.responses[a] for r in ranked for a, _ in combinations(range(RANKED), 2)],
        "rejected_ids": [
            r.prompt + r.responses[b] for r in ranked for _, b in combinations(range(RANKED), 2)
        ],
    }
    size = {"per_device_train_batch_size": len(columns["chosen_ids"]), "learning_rate": LR}
    options = {"args": trl_peer.arguments(RewardConfig, side, args.rounds + 1, **size)}
    scorer = scorer_like(trunk, model)
    pairwise = pairwise_of_scores(scorer, ranked)
    trainer = trl_peer.observed(RewardTrainer)(
        model=model, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer, **options
    )
    cfg = reward_model.Config(objective="listwise", optim=optimizer_like_trl())
    agent = reward_model.Agent(scorer, cfg)

    def ours() -> None:
        batch = make_batch(ranked, range(PROMPTS))
        reward_model.update(agent, batch, None, cfg)

    turns = trl_peer.train_in_turns(trainer, ours, trl_peer.clock_of(args))
    if side == "tuned":
        trl_peer.assert_equal("reward model", [float(pairwise)], trainer.losses[:1])
    what = f"listwise reward model, 7M parameters, {PROMPTS} HH prompts x K = {RANKED}"
    return show(what, side, turns, ranked, args, target=3.0)


@torch.no_grad()
def pairwise_of_scores(scorer: Scorer, ranked: list[Encoded]) -> Tensor:
    """Mean Bradley-Terry loss over all pairs of our K scores of each ranking."""
    batch = make_batch(ranked, range(len(ranked)))
    scores = batch.grid(scorer(batch.responses))
    best, worst = zip(*combinations(range(RANKED), 2), strict=True)
    return bradley_terry_loss(scores[:, list(best)], scores[:, list(worst)]).mean()


def show(
    what: str,
    side: str,
    turns: trl_peer.Turns,
    encoded: list[Encoded],
    args: argparse.Namespace,
    target: float | None = None,
) -> record.Row:
    """The row, printed as soon as it is known."""
    settings = {
        "threads": args.threads,
        "clock": "cpu" if args.cpu_time else "wall",
        "tokens": sum(item.num_tokens for item in encoded),
    }
    row = trl_peer.row(what, side, turns, target or TARGETS[side], settings)
    print(f"{what}, against TRL {side}: {row.ratio:.2f}x ({row.ours:.0f} and {row.peer:.0f} ms)", flush=True)
    return row


TASKS = {"dpo": compare_dpo, "reward": compare_reward}

if __name__ == "__main__":
    main()
