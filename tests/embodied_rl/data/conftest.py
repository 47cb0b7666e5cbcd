from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest

from embodied_rl.data.recorder import Info, Recorder

LENGTHS = (3, 1, 7, 2, 5)


def box(*shape: int, low: float = -np.inf, high: float = np.inf, dtype: type = np.float64) -> gym.spaces.Box:
    return gym.spaces.Box(low, high, shape, dtype)


def draw(space: gym.Space, rows: int, rng: np.random.Generator):
    """Random rows of a space; every value is different, so that a shift by one row is seen."""
    if isinstance(space, gym.spaces.Dict):
        return {key: draw(inner, rows, rng) for key, inner in space.spaces.items()}
    if isinstance(space, gym.spaces.Text):
        return [f"word{i}" for i in range(rows)]
    if space.dtype == np.uint8:
        return rng.integers(0, 256, (rows, *space.shape), dtype=np.uint8)
    return rng.normal(size=(rows, *space.shape))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., list[dict]]:
    """Write a dataset of random episodes to `tmp_path`; return what was recorded."""

    def write(
        dataset_id: str = "test/data-v0",
        observation_space: gym.Space | None = None,
        action_space: gym.Space | None = None,
        lengths: Sequence[int] = LENGTHS,
        terminated: Sequence[int] = (0, 2),
        **info,
    ) -> list[dict]:
        rng = np.random.default_rng(0)
        observation_space = observation_space or box(4)
        action_space = action_space or gym.spaces.Box(-2.0, 2.0, (2,), np.float32)
        episodes = []
        spaces = {"observation_space": observation_space, "action_space": action_space}
        with Recorder(dataset_id, Info(**spaces, **info), tmp_path, overwrite=True) as recorder:
            for index, steps in enumerate(lengths):
                last = np.arange(steps) == steps - 1
                episode = {
                    "observations": draw(observation_space, steps + 1, rng),
                    "actions": rng.uniform(-2, 2, (steps, 2)).astype(np.float32),
                    "rewards": rng.normal(size=steps),
                    "terminations": last & (index in terminated),
                    "truncations": last & (index not in terminated),
                    "infos": {"success": rng.random(steps + 1) > 0.5},
                    "metadata": {
                        "seed": 10 + index,
                        "instruction": f"do {index}",
                        "options": {"start": index},
                    },
                }
                recorder.add_episode(**episode)
                episodes.append(episode)
        return episodes

    return write


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], dict[str, tuple[int, int]]]:
    """Replace the progress bars of a module; they end up in the dict returned, name -> (done, total)."""

    def watch(module: ModuleType) -> dict[str, tuple[int, int]]:
        seen: dict[str, tuple[int, int]] = {}

        @contextmanager
        def counting(name: str, total: int) -> Iterator[Callable[[int], None]]:
            yield lambda done: seen.update({name: (done, total)})

        monkeypatch.setattr(module, "counting", counting)
        return seen

    return watch
