"""How every script evaluates: short looks while training, then `eval.json`, videos and the report page."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_rl.data.types import Spec
from embodied_rl.eval import report, results, rollout, scores
from embodied_rl.eval.video import VideoConfig
from embodied_rl.models.policy import Policy
from envs.suites import make_vec
from rl_core.config import require


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
        require(self.videos >= 0, "eval.videos", self.videos, "at least 0")


class Evaluator:
    """Runs policies in the environment of `spec`; raises ValueError if its spaces differ from the spec.

    `dataset` is a Minari dataset's metadata, which may hold reference scores.
    """

    def __init__(self, cfg: Config, spec: Spec, dataset: Mapping[str, Any] | None = None) -> None:
        self._cfg = cfg
        num_envs = min(cfg.num_envs, max(cfg.episodes, cfg.curve_episodes))
        self._env = make_vec(spec.env_id, num_envs, **spec.env_kwargs)
        spec.check(self._env.single_observation_space, self._env.single_action_space)
        self._reference = scores.reference(spec.env_id, dataset)

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
        video = VideoConfig(directory=directory / "videos", episodes=cfg.videos) if cfg.videos else None
        found = rollout.evaluate(
            policy,
            self._env,
            episodes=cfg.episodes,
            seed=cfg.seed,
            deterministic=cfg.deterministic,
            video=video,
        )
        content = results.summarize(found, self._reference, run_dir=directory, argv=sys.argv)
        results.write(directory, content)
        report.write_report(directory)
        return content

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
