"""Evaluate a policy over seeded episodes in a vector environment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from embodied_rl.eval.play import Step, env_id, has_success, play
from embodied_rl.eval.video import Mp4Writer, VideoConfig
from embodied_rl.models.policy import Policy
from envs.frames import before_reset, render_frame
from rl_core.progress import counting


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """What one episode came to."""

    index: int
    seed: int
    task: str
    sum_reward: float
    max_reward: float
    length: int
    success: bool  # at any step
    success_at_end: bool
    terminated: bool  # False: it ended at the time limit
    video: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All episodes of one evaluation, in the order of their seeds, and how they were run."""

    env_id: str
    episodes: tuple[Episode, ...]
    has_success: bool  # False: the environment knows no success, `Episode.success` says nothing
    settings: dict[str, Any]
    latency_ms: np.ndarray = field(repr=False)  # [calls] one per `policy.act` on the whole batch
    wall_s: float

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return per episode, `[episodes]`."""
        return np.array([episode.sum_reward for episode in self.episodes])

    @property
    def successes(self) -> np.ndarray:
        """Success at any step per episode, bool `[episodes]`."""
        return np.array([episode.success for episode in self.episodes])

    def metrics(self) -> dict[str, float]:
        """The few numbers a training curve shows."""
        length = float(np.mean([episode.length for episode in self.episodes]))
        numbers = {"return": float(self.returns.mean()), "length": length}
        return {**numbers, "success": float(self.successes.mean())} if self.has_success else numbers


def evaluate(
    policy: Policy,
    env: VectorEnv,
    *,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    video: VideoConfig | None = None,
) -> Evaluation:
    """Run `episodes` episodes, as many at a time as `env` has simulations.

    Episode `i` starts from seed `seed + i` however many simulations there are, so that a deterministic policy
    gets the same episodes, up to the rounding of its matrix products. Each wave starts together and ends with
    its longest episode. See `play` for what is required of `env`.
    """
    if episodes < 1:
        raise ValueError(f"eval.episodes={episodes}: must be at least 1")
    start = time.perf_counter()
    latency: list[float] = []
    done: list[Episode] = []
    with counting("evaluating", episodes) as progress:
        for first in range(0, episodes, env.num_envs):
            indices = range(first, min(first + env.num_envs, episodes))
            tally = _Tally(env, indices, seed, video)
            wave = play(policy, env, indices, seed=seed, deterministic=deterministic, watch=tally.film)
            for step in wave:
                latency.append(step.latency_ms)
                tally.add(step)
                progress(len(done) + tally.finished)
            done += tally.episodes()
    return Evaluation(
        env_id=env_id(env),
        episodes=tuple(done),
        has_success=has_success(env),
        settings={"episodes": episodes, "seed": seed, "deterministic": deterministic, **_task(env)},
        latency_ms=np.array(latency),
        wall_s=time.perf_counter() - start,
    )


def _task(env: VectorEnv) -> dict[str, Any]:
    return {
        "num_envs": env.num_envs,
        "env_id": env_id(env),
        "env_kwargs": dict(env.spec.kwargs) if env.spec else {},
        **env.metadata.get("suite", {}),
    }


class _Tally:
    """Sums up the episodes of one wave."""

    def __init__(self, env: VectorEnv, indices: Sequence[int], seed: int, video: VideoConfig | None) -> None:
        num = env.num_envs
        self._env_id = env_id(env)
        self._indices = indices
        self._seed = seed
        self._tasks: Sequence[str] = []
        self._sum = np.zeros(num)
        self._max = np.full(num, -np.inf)
        self._length = np.zeros(num, np.int64)
        self._success = np.zeros(num, bool)
        self._success_at_end = np.zeros(num, bool)
        self._terminated = np.zeros(num, bool)
        self.finished = 0
        filmed = [index for index in indices if video is not None and index < video.episodes]
        self._films = {
            slot: _Film(env, slot, video, seed + index)
            for slot, index in enumerate(filmed)
            if video is not None
        }

    def add(self, step: Step) -> None:
        run = step.running
        if not self._tasks:
            names = step.start_infos.get("task", [self._env_id] * len(run))
            self._tasks = [str(name) for name in names]
        self._sum[run] += step.reward[run]
        self._max[run] = np.maximum(self._max[run], step.reward[run])
        self._length[run] += 1
        self._success |= run & step.success
        self._success_at_end[run] = step.success[run]
        self._terminated[run] = step.terminated[run]
        self.finished += int(step.ended.sum())
        for slot, film in self._films.items():
            if step.ended[slot]:
                film.close()

    def film(self, running: np.ndarray) -> None:
        for slot, film in self._films.items():
            if running[slot]:
                film.frame()

    def episodes(self) -> list[Episode]:
        return [
            Episode(
                index=index,
                seed=self._seed + index,
                task=self._tasks[slot],
                sum_reward=float(self._sum[slot]),
                max_reward=float(self._max[slot]),
                length=int(self._length[slot]),
                success=bool(self._success[slot]),
                success_at_end=bool(self._success_at_end[slot]),
                terminated=bool(self._terminated[slot]),
                video=self._films[slot].path if slot in self._films else None,
            )
            for slot, index in enumerate(self._indices)
        ]


class _Film:
    """The video of one simulation's first episode, from its first state to the one it ends in."""

    def __init__(self, env: VectorEnv, slot: int, config: VideoConfig, seed: int) -> None:
        control_fps = float(env.metadata.get("render_fps", config.max_fps))
        self._every = max(1, round(control_fps / config.max_fps))
        self._env, self._slot, self._config = env, slot, config
        self._steps = 0
        self.path = config.directory / f"episode_seed_{seed}.mp4"
        self._writer = Mp4Writer(self.path, fps=control_fps / self._every)
        self._unhook = before_reset(env, slot, self._last_frame)

    def close(self) -> None:
        self._unhook()
        self._writer.close()

    def frame(self) -> None:
        if self._steps % self._every == 0:
            self._draw()
        self._steps += 1

    def _last_frame(self) -> None:
        if self._steps:  # not before the reset that begins the episode
            self._draw()

    def _draw(self) -> None:
        width, height, camera = self._config.width, self._config.height, self._config.camera
        self._writer.add(render_frame(self._env, self._slot, width=width, height=height, camera=camera))
