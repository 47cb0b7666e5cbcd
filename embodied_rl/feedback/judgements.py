"""Comparisons of segments: those a reward model learns from, and the folder that keeps them.

A folder holds `comparisons.jsonl` (records of `rl_core.comparisons`, whose items name segments),
`segments/*.safetensors` (what was compared), and `clips/*.mp4` where a person looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from embodied_rl.data.types import Spec
from embodied_rl.feedback.segments import Segments, join
from rl_core.comparisons import Comparison, ComparisonStore

COMPARISONS, SEGMENTS, CLIPS = "comparisons.jsonl", "segments", "clips"
RANKS = {1.0: (0, 1), 0.0: (1, 0), 0.5: (0, 0)}  # of a preference for the first of two items


class Judgements:
    """Judged pairs `[Q, 2]` with their preferences `[Q]` and how often each member sees them, `[Q, M]`.

    `asked` waits for a person. The state goes into the checkpoint.
    """

    def __init__(self, members: int, device: torch.device) -> None:
        self._members = members
        self._pairs: Segments | None = None
        self.preference = torch.zeros(0, device=device)
        self.counts = torch.zeros(0, members, device=device)
        self.num_asked = 0  # in this run, answered or not
        self.asked: Segments | None = None
        self.history: list[list[float]] = []  # [iteration, comparisons, accuracy, agreement]

    def __len__(self) -> int:
        return len(self.preference)

    @property
    def pairs(self) -> Segments:
        """What was judged, `[Q, 2]`."""
        assert self._pairs is not None, "add() first"
        return self._pairs

    @property
    def known(self) -> Tensor:
        """Places `[Q, 2, 3]` of the pairs that this run asked about; other runs' places are not its own."""
        if self._pairs is None:
            return torch.zeros(0, 2, 3, dtype=torch.int64)
        return self._pairs.place[len(self) - self.num_asked :]  # an earlier run's come first

    def add(self, pairs: Segments, preference: Tensor, generator: torch.Generator) -> None:
        """Take in judged pairs, and draw how often each member sees them: Poisson(1), a bootstrap."""
        ones = torch.ones(len(pairs), self._members, device=generator.device)
        counts = torch.poisson(ones, generator=generator)
        self._pairs = pairs if self._pairs is None else join([self._pairs, pairs])
        self.preference = torch.cat([self.preference, preference])
        self.counts = torch.cat([self.counts, counts])

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves."""
        return {
            "pairs": None if self._pairs is None else self._pairs.tensors(),
            "preference": self.preference,
            "counts": self.counts,
            "num_asked": self.num_asked,
            "asked": None if self.asked is None else self.asked.tensors(),
            "history": [list(row) for row in self.history],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        pairs, asked = state_dict["pairs"], state_dict["asked"]
        self._pairs = None if pairs is None else Segments(**pairs)
        self.asked = None if asked is None else Segments(**asked)
        self.preference, self.counts = state_dict["preference"], state_dict["counts"]
        self.num_asked = int(state_dict["num_asked"])
        self.history = [list(row) for row in state_dict["history"]]


class Folder:
    """Where comparisons and what was compared are kept, of one environment and one length."""

    def __init__(self, path: Path, spec: Spec) -> None:
        self.path, self._spec = path, spec
        self.store = ComparisonStore(path / COMPARISONS)

    def keep(self, pairs: Segments, iteration: int) -> None:
        """Write the segments of pairs `[Q, 2]`, with the environment and the fields that they are of."""
        file = self.path / SEGMENTS / f"{iteration:06d}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: x.flatten(0, 1).cpu().contiguous() for name, x in pairs.tensors().items()}
        save_file(tensors, file, {"env_id": self._spec.env_id, "obs_keys": ",".join(self._spec.obs_keys)})

    def question(self) -> str:
        """What is asked about every pair."""
        task = self._spec.env_kwargs.get("task")
        return f"Which clip does better at {f'{task} of ' if task else ''}{self._spec.env_id}?"

    def record(self, pairs: Segments, preference: Tensor, judge: str) -> None:
        """Append what is not there yet; a run that goes on from a checkpoint repeats what came after it."""
        known = {comparison.items for comparison in self.store}
        for items, value in zip(item_names(pairs), preference.tolist(), strict=True):
            if items not in known:
                rank = RANKS[value]
                self.store.append(Comparison(question=self.question(), items=items, rank=rank, judge=judge))

    def answers(self, pairs: Segments) -> tuple[Tensor, int]:
        """Preferences found in the store for pairs `[Q, 2]`, and how many pairs nobody has judged yet."""
        ranks = {comparison.items: comparison.rank for comparison in self.store}
        items = item_names(pairs)
        found = [_preference(ranks[pair]) for pair in items if pair in ranks]
        return torch.tensor(found), len(items) - len(found)

    def load(self, length: int) -> tuple[Segments, Tensor]:
        """All judged pairs `[Q, 2]` of segments of `length` steps, and their preferences `[Q]`.

        Raises ValueError for another environment or task, other fields or lengths, for items that are no
        segments, and for a folder without comparisons or segments.
        """
        comparisons = list(self.store)
        if not comparisons:
            raise ValueError(f"{self.store.path}: holds no comparisons")
        files = sorted((self.path / SEGMENTS).glob("*.safetensors"))
        if not files:
            raise ValueError(f"{self.path / SEGMENTS}: holds no segments, which {self.store.path} compares")
        segments = join([self._read(file, length) for file in files])
        index = {name: i for i, name in enumerate(segments.names())}
        for number, comparison in enumerate(comparisons, 1):
            unknown = [item for item in comparison.items if item not in index]
            if unknown or len(comparison.items) != 2:
                what = f"segment {unknown[0]!r} is not in {SEGMENTS}/" if unknown else "must hold two items"
                raise ValueError(f"{self.store.path}, line {number}: {what}")
            if comparison.question != self.question():
                raise ValueError(
                    f"{self.store.path}, line {number}: answers {comparison.question!r}, "
                    f"this run asks {self.question()!r}"
                )
        chosen = torch.tensor([[index[item] for item in c.items] for c in comparisons])
        return segments[chosen], torch.tensor([_preference(c.rank) for c in comparisons])

    def _read(self, file: Path, length: int) -> Segments:
        with safe_open(file, framework="pt") as found:
            tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 - no dict
            metadata = found.metadata()
        for field, ours in (
            ("env_id", self._spec.env_id),
            ("obs_keys", ",".join(self._spec.obs_keys)),
        ):
            if metadata.get(field) != ours:
                raise ValueError(f"{file}: is of {field} {metadata.get(field)!r}, this run of {ours!r}")
        segments = Segments(**tensors)
        if segments.reward.shape[1] != length:
            raise ValueError(
                f"{file}: has segments of {segments.reward.shape[1]} steps, algo.feedback.segment={length}"
            )
        return segments


def item_names(pairs: Segments) -> list[tuple[str, str]]:
    """The names of both segments of pairs `[Q, 2]`."""
    flat = pairs.map(lambda x: x.flatten(0, 1)).names()
    return list(zip(flat[::2], flat[1::2], strict=True))


def _preference(rank: tuple[int, ...]) -> float:
    return 0.5 if rank[0] == rank[1] else float(rank[0] < rank[1])
