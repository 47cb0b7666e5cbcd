"""Which environment: the part of a script's configuration that names one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class Config:
    """An id, the desk's task, and what else its constructor takes: `env.kwargs={max_episode_steps: 300}`."""

    id: str = ""  # empty: where the policy was trained or the data recorded
    task: str = ""  # of the desk; empty: its default
    kwargs: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `envs.suites.make` and `make_vec`."""
        return {**self.kwargs, **({"task": self.task} if self.task else {})}
