"""What the comparisons with TRL share: real text, equal weights, TRL as shipped and tuned, steps in turn.

TRL's own loop runs (`trainer.train()`). A callback times each of its steps, from after the batch is collated
to after the optimizer, and takes one of our steps, batch building included, before it lets TRL go on. Both
sides start from the same weights and see the same batch, so their losses stay equal step by step; that is
asserted on the tuned trainer, which computes in float32 as we do.

`default` is TRL with its defaults: bf16 autocast and gradient checkpointing. `tuned` has neither; DPO's
reference log-probabilities are precomputed. Both write no checkpoints and report nowhere.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging

from benchmarks import record
from llm_align.data import loader
from llm_align.data.examples import Example, preferences
from llm_align.data.tokenizer import train_tokenizer
from llm_align.data.tokens import Encoded, encode
from llm_align.models.causal_lm import Small, small_causal_lm

HH = record.ROOT.parent / "shared" / "data" / "hh-rlhf" / "harmless-base.jsonl.gz"
VOCABULARY = 4096
TRUNK = {"hidden_size": 288, "num_layers": 6, "num_heads": 6, "num_kv_heads": 3}  # 7M with 4096 tokens
SIDES = ("default", "tuned")


def quiet() -> None:
    """No progress bars and no advice from the libraries between our lines."""
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("trl", "datasets", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def hh_pairs(count: int, source: Path, max_length: int = 512) -> tuple[Any, list[Encoded]]:
    """A tokenizer trained on HH, and the first `count` pairs that fit `max_length` tokens, as they stand."""
    examples = loader.read(loader.Config(source=str(source), limit=600, empty="drop"), preferences)
    tokenizer = train_tokenizer(loader.texts(examples), VOCABULARY)
    encoded = encode(tokenizer, examples[: 4 * count], max_length=max_length, too_long="drop")
    return tokenizer, encoded[:count]


def random_pairs(count: int, vocabulary: int, prompt: int = 192, response: int = 96) -> list[Encoded]:
    """Pairs of random tokens below `vocabulary`, responses of half to the whole of `response` tokens."""
    generator = torch.Generator().manual_seed(0)
    example = Example(prompt="", responses=["", ""])

    def text(length: int) -> list[int]:
        return torch.randint(3, vocabulary, (length,), generator=generator).tolist()

    def answer() -> list[int]:
        return text(int(torch.randint(response // 2, response + 1, (), generator=generator)))

    pairs = [(text(prompt), [answer(), answer()]) for _ in range(count)]
    return [
        Encoded(prompt=ids, responses=both, loss_masks=[[True] * len(r) for r in both], example=example)
        for ids, both in pairs
    ]


def policy_and_reference(
    tokenizer: Any,
    *,
    vocabulary: int = VOCABULARY,
    trunk: dict[str, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Any, Any]:
    """Two models that differ a little, so that no loss is log 2; each call gives the same weights."""
    torch.manual_seed(0)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Small(vocab_size=vocabulary, **(trunk or TRUNK), **ids)
    reference = small_causal_lm(config).to(dtype).requires_grad_(False)
    policy = copy.deepcopy(reference).requires_grad_(True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator).to(dtype)
    return policy, reference


def add_options(parser: argparse.ArgumentParser) -> None:
    """What both benchmarks of steps ask."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=HH)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="CPU seconds in place of wall time: for one thread on a machine that others use as well",
    )


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """Wall time, or the process's CPU time."""
    return time.process_time if args.cpu_time else time.perf_counter


def arguments(kind: type, side: str, steps: int, **options: Any) -> Any:
    """A TRL configuration of class `kind`, as shipped or tuned, for `steps` steps that write nothing."""
    tuned = {"bf16": False, "gradient_checkpointing": False} if side == "tuned" else {}
    return kind(
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **tuned,
        **options,
    )


def observed(kind: type) -> type:
    """A TRL trainer that also keeps each step's loss, and takes a dataset of token ids as it is."""

    class Observed(kind):  # type: ignore[misc, valid-type]
        def compute_loss(self, *args: Any, **options: Any) -> Any:
            loss = super().compute_loss(*args, **options)
            self.__dict__.setdefault("losses", []).append(float(loss.detach()))
            return loss

        def _prepare_dataset(self, dataset: Any, *args: Any, **options: Any) -> Any:
            if "chosen_ids" in dataset.column_names:
                return dataset
            return super()._prepare_dataset(dataset, *args, **options)

    return Observed


class Turns(TrainerCallback):
    """Times the trainer's steps, and one of ours after each."""

    def __init__(self, ours: Callable[[], float | None], clock: Callable[[], float]) -> None:
        self._ours, self._clock = ours, clock
        self._start = 0.0
        self.times: list[tuple[float, float]] = []
        self.losses: list[float | None] = []

    def on_step_begin(self, *args: Any, **options: Any) -> None:
        self._start = self._clock()

    def on_step_end(self, *args: Any, **options: Any) -> None:
        middle = self._clock()
        self.losses.append(self._ours())
        self.times.append((self._clock() - middle, middle - self._start))


def train_in_turns(
    trainer: Any, ours: Callable[[], float | None], clock: Callable[[], float] = time.perf_counter
) -> Turns:
    """Run the trainer to its end with one of our steps after each of its."""
    turns = Turns(ours, clock)
    trainer.add_callback(turns)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return turns


def row(what: str, side: str, turns: Turns, target: float | None, settings: dict[str, Any]) -> record.Row:
    """The comparison of all steps but the first, which warms up."""
    times = turns.times[1:]
    ratios = [peer / ours for ours, peer in times]
    return record.Row(
        what=what,
        peer_name=f"TRL {side}",
        ours=1000 * statistics.median(ours for ours, _ in times),
        peer=1000 * statistics.median(peer for _, peer in times),
        unit="ms",
        ratio=statistics.median(ratios),
        target=target,
        ratios=[round(ratio, 3) for ratio in ratios],
        settings=settings,
    )


def assert_equal(what: str, ours: list[float | None], theirs: list[float]) -> None:
    """Raise unless two histories of losses agree to 1e-5."""
    assert len(ours) == len(theirs), f"{what}: {len(ours)} and {len(theirs)} losses"
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        assert a is not None, f"{what}, step {step}: no loss of ours"
        assert abs(a - b) <= 1e-5, f"{what}, step {step}: our loss is {a:.7f}, TRL's {b:.7f}"
