"""Decoding speed against transformers' `generate`: same weights, same prompts, same number of new tokens.

    python benchmarks/bench_decode.py [--threads 1] [--rounds 5] [--cpu-time]

Both sides: float32, sampling at temperature 1 without top-k and top-p, or greedy (where the tokens are the
same first). `group`: samples per prompt. `ragged`: response lengths from 16 to 128, mean 72, as after a stop
token; `generate` decodes every row to the longest, which is what its users wait for.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import record
from llm_align.models.causal_lm import Small, small_causal_lm
from llm_align.models.generation import generate
from llm_align.models.sampling import Sampling

NEW_TOKENS = 128
SIZES = {
    "2M": Small(vocab_size=2048, hidden_size=192, num_layers=4, num_heads=6, num_kv_heads=2),
    "8M": Small(vocab_size=4096, hidden_size=320, num_layers=6, num_heads=8, num_kv_heads=4),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A batch to decode."""

    mode: str
    batch: int
    group: int
    prompt: int


CASES = [
    Case("greedy", 8, 1, 32),
    Case("sampled", 64, 1, 32),
    Case("sampled", 64, 8, 128),
    Case("ragged", 64, 8, 128),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds in place of wall time")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for size, config in SIZES.items():
        torch.manual_seed(0)
        model = small_causal_lm(config).eval()
        rows += [compare(model, size, case, args) for case in CASES]
    record.write(f"decode_{args.threads}_threads", rows)


def compare(model: Any, size: str, case: Case, args: argparse.Namespace) -> record.Row:
    """Time one case; a round draws all responses once on each side."""
    generator = torch.Generator().manual_seed(1)
    num_prompts = case.batch // case.group
    prompts = torch.randint(3, 2000, (num_prompts, case.prompt), generator=generator)
    lengths = torch.randint(16, NEW_TOKENS + 1, (case.batch,), generator=generator).tolist()
    limits = lengths if case.mode == "ragged" else [NEW_TOKENS] * case.batch
    greedy = case.mode == "greedy"
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0.0 if greedy else 1.0)
    options = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0, "top_p": 1.0}
    ids = prompts.repeat_interleave(case.group, 0)

    def ours() -> Tensor:
        out = generate(
            model, prompts.tolist(), sampling, generator=generator, num_samples=case.group, limits=limits
        )
        return out.responses.response_ids

    def peer() -> Tensor:
        mask = torch.ones_like(ids)
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max(limits), pad_token_id=0, **options
        )
        return out[:, case.prompt :]

    if greedy:
        assert torch.equal(ours(), peer()), "greedy tokens differ"
    settings = {"tokens": sum(limits), "clock": "cpu" if args.cpu_time else "wall"}
    what = f"{size} parameters, {case.mode}, batch {case.batch}, group {case.group}, prompt {case.prompt}"
    row = record.compare(
        what,
        ours,
        peer,
        peer_name="generate",
        rounds=args.rounds,
        clock=time.process_time if args.cpu_time else time.perf_counter,
        target=3.0,
        settings=settings,
    )
    print(f"{what}: {row.ratio:.2f}x, {1000 * sum(limits) / row.ours:.0f} tokens/s", flush=True)
    return row


if __name__ == "__main__":
    main()
