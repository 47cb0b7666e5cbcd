"""Peak memory of a DPO and a GRPO step at vocabularies of 50k and 150k, against TRL's trainers.

    python -m benchmarks.bench_trl_memory

The trunk is the 7M one of `bench_trl`; each measurement is the first whole step, optimizer state included, in
a process of its own (`memory`). DPO: 8 pairs of random tokens, prompts of 96 and responses of 48 to 96.
GRPO: 4 prompts x 8 samples of 64 tokens.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks import bench_trl, bench_trl_grpo, memory, record, trl_peer
from llm_align.data.examples import Example
from llm_align.data.tokenizer import byte_tokenizer
from llm_align.data.tokens import Encoded

VOCABULARIES = (50_000, 150_000)
PAIRS, PROMPTS = 8, 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=3, metavar=("TASK", "SIDE", "VOCABULARY"), help="print one peak")
    parser.add_argument("--vocabularies", nargs="+", type=int, default=VOCABULARIES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    trl_peer.quiet()
    if args.child:
        task, side, vocabulary = args.child
        print(TASKS[task](side, int(vocabulary)))
        return
    record.write("trl_memory", [row for task in TASKS for v in args.vocabularies for row in compare(task, v)])


def compare(task: str, vocabulary: int) -> list[record.Row]:
    """One task and vocabulary against TRL as shipped and tuned."""

    def measure(side: str) -> float:
        return memory.in_its_own_process("benchmarks.bench_trl_memory", "--child", task, side, vocabulary)

    ours, rows = measure("ours"), []
    for side in trl_peer.SIDES:
        what = f"peak memory of a {task.upper()} step, {vocabulary // 1000}k vocabulary"
        peer = measure(side)
        rows.append(
            record.Row(
                what=what,
                peer_name=f"TRL {side}",
                ours=ours,
                peer=peer,
                unit="MiB",
                ratio=peer / ours,
                target=2.0,
            )
        )
        print(f"{what}, against TRL {side}: {ours:.0f} and {peer:.0f} MiB, {peer / ours:.2f}x", flush=True)
    return rows


def dpo(side: str, vocabulary: int) -> float:
    """MiB of one DPO step."""
    tokenizer, pairs = byte_tokenizer(), trl_peer.random_pairs(PAIRS, vocabulary, prompt=96)
    if side == "ours":
        return memory.peak(bench_trl.DpoStep(tokenizer, pairs, 1, vocabulary=vocabulary))
    return trainer_peak(bench_trl.dpo_trainer(side, tokenizer, pairs, 1, vocabulary=vocabulary))


def grpo(side: str, vocabulary: int) -> float:
    """MiB of one GRPO step."""
    tokenizer = byte_tokenizer()
    policy = bench_trl_grpo.policy_of(tokenizer, 1, vocabulary=vocabulary)
    prompts = [text_prompt(tokenizer, number) for number in range(PROMPTS)]
    if side == "ours":
        return memory.peak(bench_trl_grpo.GrpoStep(tokenizer, policy, prompts, 0, limit=64))
    return trainer_peak(bench_trl_grpo.grpo_trainer(side, tokenizer, policy, prompts, 0, 1, limit=64))


TASKS = {"dpo": dpo, "grpo": grpo}


def text_prompt(tokenizer: Any, number: int, length: int = 96) -> Encoded:
    """A prompt of `length` bytes, which TRL's trainer tokenises itself."""
    text = (f"{number} is a number. " * length)[:length]
    example = Example(prompt=text, responses=[])
    return Encoded(prompt=tokenizer(text)["input_ids"], responses=[], loss_masks=[], example=example)


def trainer_peak(trainer: Any) -> float:
    """MiB of the first step of a trainer."""
    found = memory.Peak()

    class Watch(TrainerCallback):
        def on_step_begin(self, *args: Any, **options: Any) -> None:
            found.start()

        def on_step_end(self, *args: Any, **options: Any) -> None:
            found.stop()

    trainer.add_callback(Watch())
    trainer.train()
    return found.mebibytes


if __name__ == "__main__":
    main()
