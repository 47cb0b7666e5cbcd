"""Peak memory of a DPO and a GRPO step at vocabularies of 50k and 150k, against TRL's trainers.

    python -m benchmarks.bench_trl_memory [--jobs 1]

The trunk is the 7M one of `bench_trl`; each measurement is the first whole step, optimizer state included, in
a process of its own (`memory`). DPO: 4 pairs of random tokens, prompts of 96 and responses of 48 to 96.
GRPO: 2 prompts x 8 samples of 64 tokens.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks import bench_trl, bench_trl_grpo, memory, record, trl_peer
from llm_align.data.examples import Example
from llm_align.data.tokenizer import byte_tokenizer
from llm_align.data.tokens import Encoded

VOCABULARIES = (50_000, 150_000)
PAIRS, PROMPTS = 4, 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=3, metavar=("TASK", "SIDE", "VOCABULARY"), help="print one peak")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    args = parser.parse_args()
    torch.set_num_threads(1)
    trl_peer.quiet()
    if args.child:
        task, side, vocabulary = args.child
        print(TASKS[task](side, int(vocabulary)))
        return
    keys = [(t, v, side) for t in TASKS for v in VOCABULARIES for side in ("ours", *trl_peer.SIDES)]
    with ThreadPoolExecutor(args.jobs) as pool:
        peaks = dict(zip(keys, pool.map(measure, keys), strict=True))
    rows = [
        row(t, v, side, peaks[t, v, "ours"], peaks[t, v, side])
        for t, v, side in keys
        if side in trl_peer.SIDES
    ]
    record.write("trl_memory", rows)


def measure(key: tuple[str, int, str]) -> float:
    """MiB of one task, vocabulary and side."""
    task, vocabulary, side = key
    child = ("benchmarks.bench_trl_memory", "--child", task, side, vocabulary)
    peak = memory.in_its_own_process(*child)
    print(f"{task}, {vocabulary} tokens, {side}: {peak:.0f} MiB", flush=True)
    return peak


def row(task: str, vocabulary: int, side: str, ours: float, peer: float) -> record.Row:
    """The comparison with one side of TRL."""
    return record.Row(
        what=f"peak memory of a {task.upper()} step, {vocabulary // 1000}k vocabulary",
        peer_name=f"TRL {side}",
        ours=ours,
        peer=peer,
        unit="MiB",
        ratio=peer / ours,
        target=2.0,
    )


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
