"""Where a policy comes from: a scripted expert, a directory that a run saved, a Stable-Baselines3 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym

from embodied_rl.data.types import Spec
from embodied_rl.models.policy import ActorPolicy, Policy
from envs.config import Config as EnvConfig
from envs.desk.experts import Expert
from envs.suites import DESK, make

EXPERT = "expert"


def open_policy(
    source: str, env: EnvConfig, *, trust: bool = False, mistakes: float = 0.0, seed: int = 0
) -> tuple[Policy, Spec]:
    """Open the policy named by `source`, and the layout of the environment it is to act in.

    `source` is `expert` (the desk's, with its chance of `mistakes` per action), a directory `<run>` or
    `<run>/policy`, or an SB3 `model.zip`, which needs `trust`. An empty `env.id` means the desk for the
    expert, and the environment of its training for a saved policy. Raises ValueError for anything else.
    """
    if source == EXPERT:
        env = EnvConfig(id=env.id or DESK, task=env.task, kwargs=env.kwargs)
        if env.id != DESK:
            raise ValueError(f"policy=expert: only {DESK} has scripted experts, not {env.id}")
        return Expert(env.task or "lift_block", mistakes=mistakes, seed=seed), spec_of(env)
    path = Path(source)
    if path.suffix == ".zip":
        from embodied_rl.models.sb3 import SB3Policy  # two seconds of import that only SB3 files need

        policy = SB3Policy.load(path, trust=trust)
        policy.check(*spaces_of(env))
        return policy, spec_of(env)
    for directory in (path, path / "policy"):
        if (directory / "config.json").is_file():
            actor = ActorPolicy.load(directory, seed=seed)
            return actor, spec_of(env) if env.id else actor.spec
    raise ValueError(f"policy={source!r}: must be expert, a directory that a run saved, or an SB3 .zip file")


def spec_of(env: EnvConfig) -> Spec:
    """Layout of an environment, for a policy to be checked against."""
    return Spec.from_spaces(*spaces_of(env), env.id, env.arguments())


def spaces_of(env: EnvConfig) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Make the environment once and return its observation and action space."""
    if not env.id:
        raise ValueError("env.id='': must name the environment, an SB3 file does not know it")
    instance = make(env.id, **env.arguments())
    instance.close()
    return instance.observation_space, instance.action_space
