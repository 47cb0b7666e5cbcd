"""Decoding, DPO and GRPO at half a billion parameters on one CUDA GPU, against transformers and TRL.

    python -m benchmarks.bench_gpu [--rounds 5] [--peak-tflops 989]

Random weights in bfloat16, of the shape of Qwen2.5-0.5B. Every row gives tokens per second; its settings hold
model FLOP utilisation and peak memory of both sides. The same tokens count on both sides: those of every
sequence without padding, a shared prompt once per response. A training step is 6 FLOPs per parameter and
token, a decoded token 2; a GRPO step is the sum. Memory is the peak above what stood before the step, model
and optimizer included there. The GPU's peak, without sparsity, is known for the names in `PEAKS`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import bench_trl, bench_trl_grpo, bench_trl_memory, record, trl_peer
from llm_align.data.tokenizer import byte_tokenizer
from llm_align.models.generation import generate
from llm_align.models.sampling import Sampling

PEAKS = {
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "4090": 165.0,
}  # bf16 TFLOP/s


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The model and the batches; `prompt`, `response` and `limit` in tokens."""

    trunk: dict[str, int]
    vocabulary: int
    pairs: int
    prompt: int
    response: int
    prompts: int  # of a GRPO step, each with `bench_trl_grpo.GROUP` samples
    limit: int
    batch: int  # of plain decoding


FULL = Sizes(
    trunk={
        "hidden_size": 896,
        "num_layers": 24,
        "num_heads": 14,
        "num_kv_heads": 2,
        "intermediate_size": 4864,
        "max_length": 2048,
    },
    vocabulary=151_936,
    pairs=16,
    prompt=512,
    response=512,
    prompts=8,
    limit=512,
    batch=64,
)


class Meter:
    """A clock that waits for the GPU, and keeps the peak memory between two readings."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._standing = 0
        self.peaks: list[float] = []  # MiB above what stood at the reading before; 0 on a CPU

    def __call__(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
            self.peaks.append((torch.cuda.max_memory_allocated() - self._standing) / 2**20)
            torch.cuda.reset_peak_memory_stats()
            self._standing = torch.cuda.memory_allocated()
        else:
            self.peaks.append(0.0)
        return time.perf_counter()


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a step is worth on either side."""

    tokens: float
    flops: float

    def row(
        self,
        what: str,
        peer: str,
        times: list[tuple[float, float]],
        peaks: tuple[float, float],
        peak_flops: float,
    ) -> record.Row:
        """Tokens per second of us and the peer, from seconds a step."""
        ours, theirs = (statistics.median(side) for side in zip(*times, strict=True))
        ratios = [b / a for a, b in times]
        return record.Row(
            what=what,
            peer_name=peer,
            ours=self.tokens / ours,
            peer=self.tokens / theirs,
            unit="tokens/s",
            ratio=statistics.median(ratios),
            ratios=[round(ratio, 3) for ratio in ratios],
            settings={
                "model FLOP utilisation": round(self.flops / ours / peak_flops, 4),
                "the peer's": round(self.flops / theirs / peak_flops, 4),
                "peak MiB": round(peaks[0]),
                "the peer's MiB": round(peaks[1]),
            },
        )


def measure(
    sizes: Sizes, device: torch.device, dtype: torch.dtype, rounds: int, peak_flops: float
) -> list[record.Row]:
    """All rows."""
    model = {"vocabulary": sizes.vocabulary, "trunk": sizes.trunk, "dtype": dtype}
    rows = [decode(sizes, device, model, rounds, peak_flops)]
    for side in trl_peer.SIDES:
        rows.append(dpo(side, sizes, device, model, rounds, peak_flops))
        rows.append(grpo(side, sizes, device, model, rounds, peak_flops))
    return rows


def decode(
    sizes: Sizes, device: torch.device, model: dict[str, Any], rounds: int, peak_flops: float
) -> record.Row:
    """The decode loop against transformers' `generate`, one prompt per `GROUP` samples."""
    tokenizer, group = byte_tokenizer(), bench_trl_grpo.GROUP
    policy = trl_peer.policy_and_reference(tokenizer, **model)[0].to(device).eval()
    generator = torch.Generator(device).manual_seed(0)
    shape = (sizes.batch // group, sizes.prompt)
    prompts = torch.randint(3, sizes.vocabulary, shape, generator=generator, device=device)
    ids = prompts.repeat_interleave(group, 0)

    def ours() -> None:
        generate(
            policy,
            prompts.tolist(),
            Sampling(max_new_tokens=sizes.limit),
            generator=generator,
            num_samples=group,
        )

    def peer() -> None:
        mask, length = torch.ones_like(ids), {"min_new_tokens": sizes.limit, "max_new_tokens": sizes.limit}
        policy.generate(input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, **length)

    meter = Meter(device)
    times = []
    for _ in range(rounds + 1):
        start = meter()
        ours()
        middle = meter()
        peer()
        times.append((middle - start, meter() - middle))
    tokens = len(ids) * sizes.limit
    work = Work(tokens=tokens, flops=2 * policy.num_parameters() * tokens)
    peaks = (max(meter.peaks[1::3]), max(meter.peaks[2::3]))
    what = f"decoding, {sizes.batch} samples of {sizes.limit} tokens, prompts of {sizes.prompt}"
    return work.row(what, "generate", times[1:], peaks, peak_flops)


def dpo(
    side: str, sizes: Sizes, device: torch.device, model: dict[str, Any], rounds: int, peak_flops: float
) -> record.Row:
    """A DPO step against TRL's."""
    tokenizer = byte_tokenizer()
    pairs = trl_peer.random_pairs(sizes.pairs, sizes.vocabulary, sizes.prompt, sizes.response)
    step = bench_trl.DpoStep(tokenizer, pairs, rounds + 1, device=device, **model)
    trainer = bench_trl.dpo_trainer(side, tokenizer, pairs, rounds + 1, **model)
    tokens = sum(2 * len(pair.prompt) + sum(map(len, pair.responses)) for pair in pairs)
    work = Work(tokens=tokens, flops=6 * trainer.model.num_parameters() * tokens)
    what = f"DPO step, {sizes.pairs} pairs, prompts of {sizes.prompt}, responses to {sizes.response}"
    return in_turns(what, side, trainer, step, work, device, peak_flops)


def grpo(
    side: str, sizes: Sizes, device: torch.device, model: dict[str, Any], rounds: int, peak_flops: float
) -> record.Row:
    """A GRPO step against TRL's, generation included."""
    tokenizer, group = byte_tokenizer(), bench_trl_grpo.GROUP
    prompts = [bench_trl_memory.text_prompt(tokenizer, n, sizes.prompt) for n in range(sizes.prompts)]
    policies = [bench_trl_grpo.policy_of(tokenizer, 1, **model) for _ in range(2)]
    step = bench_trl_grpo.GrpoStep(tokenizer, policies[0].to(device), prompts, 0, sizes.limit)
    trainer = bench_trl_grpo.grpo_trainer(side, tokenizer, policies[1], prompts, 0, rounds + 1, sizes.limit)
    samples, parameters = sizes.prompts * group, policies[0].num_parameters()
    drawn, read = samples * sizes.limit, samples * (sizes.prompt + sizes.limit)
    work = Work(tokens=drawn, flops=parameters * (2 * drawn + 6 * read))
    what = f"GRPO step, {sizes.prompts} x {group} samples of {sizes.limit}, prompts of {sizes.prompt}"
    return in_turns(what, side, trainer, step, work, device, peak_flops)


def in_turns(
    what: str,
    side: str,
    trainer: Any,
    step: Callable[[], float | None],
    work: Work,
    device: torch.device,
    peak_flops: float,
) -> record.Row:
    """Our steps between TRL's; the first of each is a warm-up."""
    meter = Meter(device)
    turns = trl_peer.train_in_turns(trainer, step, meter)
    peaks = (max(meter.peaks[2::3]), max(meter.peaks[1::3]))
    return work.row(what, f"TRL {side}", turns.times[1:], peaks, peak_flops)


def peak_flops_of(name: str, tflops: float | None) -> float:
    """FLOP/s of the GPU `name`, or what was given; raises ValueError for one that is not known."""
    known = next((peak for part, peak in PEAKS.items() if part in name), None)
    if tflops is None and known is None:
        raise ValueError(f"GPU {name!r}: give --peak-tflops (known: {', '.join(PEAKS)})")
    return 1e12 * (tflops or known or 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bfloat16, without sparsity")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench_gpu: no CUDA device (torch.cuda.is_available() is False); this benchmark needs one")
    trl_peer.quiet()
    peak_flops = peak_flops_of(torch.cuda.get_device_name(), args.peak_tflops)
    record.write("gpu", measure(FULL, torch.device("cuda"), torch.bfloat16, args.rounds, peak_flops))


if __name__ == "__main__":
    main()
