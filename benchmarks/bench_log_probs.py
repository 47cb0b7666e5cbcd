"""Log-probabilities of responses with gradients: ours against full logits, at 50k and 150k vocabularies.

    python benchmarks/bench_log_probs.py [--rounds 5]

`naive` is what trainers usually do: logits at every position, log_softmax, gather. Results are equal to 1e-5
first. Peak memory is each side's own, in a process of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import memory, record
from llm_align.data.batches import Responses, make_responses
from llm_align.models.causal_lm import Small, small_causal_lm
from llm_align.models.log_probs import log_probs

PAIRS, PROMPT, LONGEST = 4, 96, 64
VOCABULARIES = (50_000, 150_000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory", nargs=2, metavar=("SIDE", "VOCABULARY"), help="print one side's peak, MiB"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        print(peak(args.memory[0], int(args.memory[1])))
        return
    rows = []
    for vocabulary in VOCABULARIES:
        model, responses = setting(vocabulary)
        ours, naive = (
            step(model, lambda r, m=model: ours_log_probs(m, r), responses),
            step(model, lambda r, m=model: naive_log_probs(m, r), responses),
        )
        torch.testing.assert_close(ours(), naive(), atol=1e-5, rtol=0)
        what = f"log-probabilities with gradients, {vocabulary // 1000}k vocabulary"
        rows.append(record.compare(what, ours, naive, peer_name="full logits", rounds=args.rounds))
        small, large = (
            memory.in_its_own_process("benchmarks.bench_log_probs", "--memory", side, vocabulary)
            for side in ("ours", "naive")
        )
        what = f"peak memory of the same step, {vocabulary // 1000}k vocabulary"
        rows.append(
            record.Row(
                what=what,
                peer_name="full logits",
                ours=small,
                peer=large,
                unit="MiB",
                ratio=large / small,
                target=2.0,
            )
        )
    record.write("log_probs", rows)


def setting(vocabulary: int) -> tuple[Any, Responses]:
    """A model with a 64-wide trunk, and pairs that share their prompts."""
    torch.manual_seed(0)
    model = small_causal_lm(
        Small(vocab_size=vocabulary, hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=2)
    )
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(LONGEST // 4, LONGEST + 1, (2 * PAIRS,), generator=generator).tolist()
    texts = [
        torch.randint(vocabulary, (n,), generator=generator).tolist() for n in [PROMPT] * PAIRS + lengths
    ]
    index = [*range(PAIRS), *range(PAIRS)]
    return model, make_responses(texts[:PAIRS], texts[PAIRS:], index)


def ours_log_probs(model: Any, responses: Responses) -> Tensor:
    return log_probs(model, responses).log_prob


def naive_log_probs(model: Any, responses: Responses) -> Tensor:
    prompts = responses.prompt_ids[responses.prompt_index]
    ids = torch.cat([prompts, responses.response_ids], 1)  # prompts have one length here
    mask = torch.cat([torch.ones_like(prompts, dtype=torch.bool), responses.response_mask], 1)
    logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, PROMPT - 1 : -1].float()
    picked = F.log_softmax(logits, -1).gather(-1, responses.response_ids[..., None])[..., 0]
    return torch.where(responses.response_mask, picked, 0.0)


def step(model: Any, function: Callable[[Responses], Tensor], responses: Responses) -> Callable[[], Tensor]:
    """Forward and backward of `function`."""

    def run() -> Tensor:
        model.zero_grad()
        result = function(responses)
        result.sum().backward()
        return result.detach()

    return run


def peak(side: str, vocabulary: int) -> float:
    """MiB that one step of `side` adds to the process."""
    model, responses = setting(vocabulary)
    function = {"ours": ours_log_probs, "naive": naive_log_probs}[side]
    return memory.peak(step(model, lambda r: function(model, r), responses))


if __name__ == "__main__":
    main()
