"""A whole GRPO step against TRL's with Hugging Face generation: draw, judge, learn.

    python -m benchmarks.bench_trl_grpo [equal] [spread] [flat] --threads 2 --rounds 5

8 HH prompts x 8 samples of at most 64 tokens, DAPO's loss (TRL's default), 7M parameters. Three cases: equal
lengths; stop tokens of 1/16 of the probability, so that the longest response is four times the mean; equal
rewards in half of the groups. Each side draws its own responses from the same distribution. The losses, with
the same clipped ratios to an older policy, are equal to 1e-5 on one batch that TRL has drawn.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from benchmarks import record, trl_peer
from llm_align.data.batches import make_responses
from llm_align.data.examples import Example
from llm_align.data.tokens import Encoded
from llm_align.feedback.rewards import Reward, Rewards
from llm_align.models.log_probs import log_probs
from llm_align.online import grpo, rollout
from llm_align.online.loop import Experience
from llm_align.online.rollout import Samples, Task

PROMPTS, GROUP, LIMIT = 8, 8, 64
TARGETS = {"default": 2.5, "tuned": 1.5}
LR = 1e-6


@dataclass(frozen=True, slots=True)
class Case:
    """`stops` of the 4,096 tokens end a response; rewards are equal in `flat` of the groups."""

    what: str
    stops: int = 1
    flat: int = 0


CASES = {
    "equal": Case("equal lengths"),
    "spread": Case("longest = 4 x mean length", stops=trl_peer.VOCABULARY // 16),
    "flat": Case("half of the groups with equal rewards", flat=PROMPTS // 2),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], metavar="case", help=", ".join(CASES))
    trl_peer.add_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trl_peer.quiet()
    tokenizer, pairs = trl_peer.hh_pairs(64, args.data)
    prompts = [pair for pair in pairs if len(pair.prompt) <= 192][:PROMPTS]
    for name in args.cases or CASES:
        rows = [compare(CASES[name], side, tokenizer, prompts, args) for side in trl_peer.SIDES]
        record.write(f"trl_grpo_{name}", rows)


def even_share(completion_ids: list[list[int]], flat: list[bool], **_: Any) -> list[float]:
    """Share of even token ids; 0 for prompts with the column `flat`."""
    shares = [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]
    return [0.0 if same else share for share, same in zip(shares, flat, strict=True)]


def policy_of(tokenizer: Any, stops: int, **model: Any) -> Any:
    """A policy whose responses end with one of `stops` tokens."""
    policy, _ = trl_peer.policy_and_reference(tokenizer, **model)
    policy.generation_config.eos_token_id = list(range(stops))
    return policy


def grpo_trainer(
    side: str,
    tokenizer: Any,
    policy: Any,
    prompts: list[Encoded],
    flat: int,
    steps: int,
    limit: int = LIMIT,
) -> Any:
    """TRL's GRPO trainer with all of `prompts` in every step."""
    columns = {
        "prompt": [item.example.prompt for item in prompts],
        "flat": [number < flat for number in range(len(prompts))],
    }
    size = {"per_device_train_batch_size": len(prompts) * GROUP, "num_generations": GROUP}
    limits = {"max_completion_length": limit, "learning_rate": LR}
    return trl_peer.observed(GRPOTrainer)(
        model=policy,
        reward_funcs=even_share,
        args=trl_peer.arguments(GRPOConfig, side, steps, **size, **limits),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )


class GrpoStep:
    """Our step: draw, judge, find what teaches, update."""

    def __init__(
        self, tokenizer: Any, policy: Any, prompts: list[Encoded], flat: int, limit: int = LIMIT
    ) -> None:
        asked = [
            Encoded(
                prompt=item.prompt,
                responses=[],
                loss_masks=[],
                example=Example(prompt=item.example.prompt, responses=[], columns={"flat": number < flat}),
            )
            for number, item in enumerate(prompts)
        ]
        sizes = rollout.Config(prompts=len(prompts), group_size=GROUP, max_new_tokens=limit)
        rewards = Rewards([Reward(name="even", function=even_share)])
        self.task = Task(prompts=asked, tokenizer=tokenizer, rewards=rewards, config=sizes)
        self.cfg = grpo.Config(lr=LR, reduction="token")
        self.agent = grpo.Agent(self.cfg, policy)
        self.generator = torch.Generator(policy.device).manual_seed(2)
        self.lengths: list[Tensor] = []

    def __call__(self) -> None:
        rows = range(len(self.task.prompts))
        samples = self.task.draw(self.agent.policy, rows, self.generator)
        experience = Experience(samples=samples, ref_log_prob=None, kl_coef=0.0, temperature=1.0)
        batch = grpo.collect(self.cfg, experience, self.task.config)
        grpo.update(self.agent, batch, self.cfg, self.generator)
        self.lengths.append(samples.responses.lengths)


def assert_equal_losses(trainer: Any, step: GrpoStep) -> None:
    """Both losses of one batch that TRL drew, at ratios away from 1; both models have the same weights."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    masks = [inputs[f"{part}_mask"].bool() for part in ("prompt", "completion")]
    texts = [
        [row[kept].tolist() for row, kept in zip(inputs[f"{part}_ids"], mask, strict=True)]
        for part, mask in zip(("prompt", "completion"), masks, strict=True)
    ]
    responses = make_responses(*texts)
    with torch.no_grad():
        now = log_probs(step.agent.policy, responses).log_prob
    noise = 0.3 * torch.randn(now.shape, generator=torch.Generator().manual_seed(3))
    inputs["old_per_token_logps"] = old = torch.where(responses.loss_mask, now + noise, 0.0)
    theirs = trainer.compute_loss(trainer.model, inputs)
    count = len(responses)
    samples = Samples(
        responses=responses,
        log_prob=old,
        ended=torch.ones(count, dtype=torch.bool),
        reward=torch.zeros(count),
        parts={},
        texts=[],
        group_size=1,
    )
    batch = grpo.Batch(
        samples=samples,
        advantage=inputs["advantages"],
        rows=torch.arange(count),
        num_rows=count,
        num_tokens=float(responses.loss_mask.sum()),
        ref_log_prob=None,
        kl_coef=0.0,
        rollout=step.task.config,
    )
    ours, stats = grpo.loss_of(step.agent.policy, batch, batch.rows, step.cfg)
    assert stats["clip_fraction"] > 0.1, "the ratios are too near to 1 for the check to mean anything"
    trl_peer.assert_equal("GRPO", [float(ours.detach())], [float(theirs.detach())])
    trainer._buffered_inputs = None


def compare(
    case: Case, side: str, tokenizer: Any, prompts: list[Encoded], args: argparse.Namespace
) -> record.Row:
    """Time whole steps of one case."""
    step = GrpoStep(tokenizer, policy_of(tokenizer, case.stops), prompts, case.flat)
    policy = policy_of(tokenizer, case.stops)
    trainer = grpo_trainer(side, tokenizer, policy, prompts, case.flat, args.rounds + 1)
    if side == "tuned":
        assert_equal_losses(trainer, step)
    turns = trl_peer.train_in_turns(trainer, step, trl_peer.clock_of(args))
    logged = [
        entry["completions/mean_length"]
        for entry in trainer.state.log_history
        if "completions/mean_length" in entry
    ]
    lengths = torch.cat(step.lengths).float()
    settings = {
        "threads": args.threads,
        "clock": "cpu" if args.cpu_time else "wall",
        "mean length": round(float(lengths.mean()), 1),
        "TRL's mean length": round(sum(logged) / len(logged), 1) if logged else math.nan,
        "max / mean": round(float(lengths.max() / lengths.mean()), 2),
    }
    what = f"GRPO step, 7M parameters, {PROMPTS} x {GROUP} samples, {case.what}"
    row = trl_peer.row(what, side, turns, TARGETS[side], settings)
    print(
        f"{what}, against TRL {side}: {row.ratio:.2f}x ({row.ours:.0f} and {row.peer:.0f} ms) {settings}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
