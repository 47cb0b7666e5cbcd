"""How every script evaluates: short looks while training, then `eval.json`, videos and the report page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gymnasium.vector import VectorEnv

from embodied_rl.data.types import Spec
from embodied_rl.eval import report, results, rollout, scores
from embodied_rl.eval.video import VideoConfig
from embodied_rl.models.policy import Policy
from envs.frames import check_drawable
from envs.suites import make_vec
from rl_core.config import require
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """Which episodes count. Episode `i` starts from `seed + i`, whatever `num_envs` is."""

    episodes: int = 100  # of the evaluation at the end
    curve_episodes: int = 20  # of each evaluation while training; the first ones of the same seeds
    num_envs: int = 20
    seed: int = 1_000_000  # far from the seeds that data are recorded with
    deterministic: bool = True
    videos: int = 2

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("episodes", "curve_episodes", "num_envs"):
            require(getattr(self, name) >= 1, f"eval.{name}", getattr(self, name), "at least 1")
        require(self.seed >= 0, "eval.seed", self.seed, "at least 0")
        require(self.videos >= 0, "eval.videos", self.videos, "at least 0")


class Evaluator:
    """Runs policies in the environment of `spec`; a context manager that closes it at the end.

    Mazes end with success, as `scores.arguments` says. `dataset` is a Minari dataset's metadata, which may
    hold reference scores. `make` takes the arguments of `make_vec`. Raises ValueError if the environment's
    spaces differ from the spec.
    """

    def __init__(
        self,
        cfg: Config,
        spec: Spec,
        dataset: Mapping[str, Any] | None = None,
        make: Callable[..., VectorEnv] = make_vec,
    ) -> None:
        self._cfg = cfg
        num_envs = min(cfg.num_envs, max(cfg.episodes, cfg.curve_episodes))
        kwargs = {**spec.env_kwargs, **scores.arguments(spec.env_id)}
        self._env = make(spec.env_id, num_envs, **kwargs)
        spec.check(self._env.single_observation_space, self._env.single_action_space)
        self._reference = scores.reference(spec.env_id, dataset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._env.close()

    def curve(self, policy: Policy) -> dict[str, float]:
        """Return the few numbers that a training curve shows."""
        cfg = self._cfg
        found = rollout.evaluate(
            policy, self._env, episodes=cfg.curve_episodes, seed=cfg.seed, deterministic=cfg.deterministic
        )
        return found.metrics()

    def final(self, policy: Policy, directory: Path) -> dict[str, Any]:
        """Write `eval.json`, `videos/` and `report.html` in `directory`; return what is in `eval.json`."""
        cfg = self._cfg
        found = rollout.evaluate(
            policy,
            self._env,
            episodes=cfg.episodes,
            seed=cfg.seed,
            deterministic=cfg.deterministic,
            video=self._video(directory),
        )
        content = results.summarize(found, self._reference, run_dir=directory, argv=sys.argv)
        results.write(directory, content)
        report.write_report(directory)
        return content

    def _video(self, directory: Path) -> VideoConfig | None:
        if not self._cfg.videos:
            return None
        try:
            check_drawable(self._env)
        except ValueError as error:
            console.print(f"no videos: {error}")
            return None
        return VideoConfig(directory=directory / "videos", episodes=self._cfg.videos)


class NoEvaluator:
    """Stands in for `Evaluator` where no environment is known."""

    def __enter__(self) -> Self:
        console.print("no evaluation: the dataset names no environment; name one with env.id=...")
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""

    def curve(self, policy: Policy) -> dict[str, float]:
        """Return no numbers."""
        return {}

    def final(self, policy: Policy, directory: Path) -> dict[str, Any]:
        """Write the report, which says that there is no evaluation."""
        report.write_report(directory)
        return {}


def open_evaluator(
    cfg: Config, spec: Spec, dataset: Mapping[str, Any] | None = None
) -> Evaluator | NoEvaluator:
    """Return what evaluates in the environment of `spec`, which may be none."""
    return Evaluator(cfg, spec, dataset) if spec.env_id else NoEvaluator()
