"""Normalised scores, `100 * (return - minimum) / (maximum - minimum)`: random policy 0, expert 100.

The constants are those of D4RL (`d4rl/infos.py`). They were measured on its environments, not on the
Gymnasium ones that we run, and Minari's datasets are new recordings: a score is comparable to a D4RL table
only as far as its label, which names both, allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Returns that score 0 and 100, and where they come from."""

    minimum: float
    maximum: float
    source: str

    def score(self, returns: float | np.ndarray) -> Any:
        """Normalise a return or an array of them; not clipped."""
        return 100.0 * (returns - self.minimum) / (self.maximum - self.minimum)


D4RL = {  # Gymnasium name without version: minimum, maximum, D4RL environment they were measured on
    "Hopper": (-20.272305, 3234.3, "hopper-v2"),
    "HalfCheetah": (-280.178953, 12135.0, "halfcheetah-v2"),
    "Walker2d": (1.629008, 4592.3, "walker2d-v2"),
    "Ant": (-325.6, 3879.7, "ant-v2"),
    "AdroitHandDoor": (-56.512833, 2880.5693, "door-v0"),
    "AdroitHandHammer": (-274.856578, 12794.1348, "hammer-v0"),
    "AdroitHandPen": (96.262799, 3076.8331, "pen-v0"),
    "AdroitHandRelocate": (-6.425911, 4233.8778, "relocate-v0"),
    "FrankaKitchen": (0.0, 4.0, "kitchen-v0, four tasks"),
    "AntMaze": (0.0, 1.0, "antmaze-v0, one reward per episode: continuing_task=False"),
}


def arguments(env_id: str) -> dict[str, Any]:
    """What an environment needs so that its returns are measured as D4RL measured them.

    A maze that ran on after success would pay the one reward again and again.
    """
    return {"continuing_task": False} if _family(env_id) == "AntMaze" else {}


def reference(env_id: str, dataset_metadata: Mapping[str, Any] | None = None) -> Reference | None:
    """Find the reference returns for an environment, or None (never a guess) where none are known.

    A Minari dataset's own `ref_min_score` and `ref_max_score` come first, then the D4RL constants of the
    environment's family. Variants with another reward (`AdroitHandDoorSparse-v1`) have none.
    """
    metadata = dataset_metadata or {}
    if metadata.get("ref_min_score") is not None and metadata.get("ref_max_score") is not None:
        source = f"Minari dataset {metadata.get('dataset_id', '')}, evaluated on {env_id}"
        return Reference(
            minimum=float(metadata["ref_min_score"]), maximum=float(metadata["ref_max_score"]), source=source
        )
    family = _family(env_id)
    if family not in D4RL:
        return None
    minimum, maximum, measured_on = D4RL[family]
    return Reference(
        minimum=minimum, maximum=maximum, source=f"D4RL constants of {measured_on}, evaluated on {env_id}"
    )


def _family(env_id: str) -> str:
    name = env_id.rsplit("/", 1)[-1].rsplit("-v", 1)[0]
    return "AntMaze" if name.startswith("AntMaze_") else name
