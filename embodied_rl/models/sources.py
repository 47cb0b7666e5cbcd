"""Where a policy comes from: a scripted expert, a directory that a run saved, a Stable-Baselines3 file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym

from embodied_rl.data.types import Spec
from embodied_rl.models.policy import ActorPolicy, Policy
from envs.config import Config as EnvConfig
from envs.desk.experts import Expert
from envs.suites import DESK, make
from rl_core.config import require

EXPERT = "expert"


def open_policy(
    source: str,
    env: EnvConfig,
    *,
    trust: bool = False,
    vec_normalize: str = "",
    mistakes: float = 0.0,
    seed: int = 0,
) -> tuple[Policy, Spec]:
    """Open the policy named by `source`, and the task it is to act in.

    `source` is `expert` (the desk's, with its chance of `mistakes` per action), a directory `<run>` or
    `<run>/policy`, or an SB3 `model.zip`, which needs `trust` and may need the statistics that
    `VecNormalize.save` wrote to `vec_normalize`. An empty `env.id` means the desk for the expert, and the
    environment of its training for a saved policy. Raises ValueError for anything else, and where policy and
    environment do not fit.
    """
    path = Path(source)
    require(seed >= 0, "seed", seed, "at least 0")
    if vec_normalize and path.suffix != ".zip":
        raise ValueError(
            f"vec_normalize={vec_normalize!r}: only an SB3 .zip has such statistics, not {source}"
        )
    if source == EXPERT:
        env = dataclasses.replace(env, id=env.id or DESK)
        if env.id != DESK:
            raise ValueError(f"policy=expert: only {DESK} has scripted experts, not {env.id}")
        about = {key: value for key, value in env.arguments().items() if key in ("task", "scene")}
        return Expert(**about, mistakes=mistakes, seed=seed), _spec_of(env)
    if path.suffix == ".zip":
        from embodied_rl.models.sb3 import SB3Policy  # two seconds of import that only SB3 files need

        statistics = Path(vec_normalize) if vec_normalize else None
        policy = SB3Policy.load(path, trust=trust, vec_normalize=statistics)
        policy.check(*_spaces_of(env.id, env.arguments()))
        return policy, _spec_of(env)
    for directory in (path, path / "policy"):
        if (directory / "config.json").is_file():
            actor = ActorPolicy.load(directory, seed=seed)
            spec = placed(actor.spec, env)
            spec.check(*_spaces_of(spec.env_id, spec.env_kwargs))
            return actor, spec
    raise ValueError(f"policy={source!r}: must be expert, a directory that a run saved, or an SB3 .zip file")


def placed(spec: Spec, env: EnvConfig) -> Spec:
    """`spec` in the environment `env`, whose arguments refine those of the same id."""
    own = spec.env_kwargs if env.id in ("", spec.env_id) else {}
    return dataclasses.replace(spec, env_id=env.id or spec.env_id, env_kwargs={**own, **env.arguments()})


def _spec_of(env: EnvConfig) -> Spec:
    return Spec.from_spaces(*_spaces_of(env.id, env.arguments()), env.id, env.arguments())


def _spaces_of(env_id: str, arguments: Mapping[str, Any]) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Make the environment once and return its observation and action space."""
    if not env_id:
        raise ValueError("env.id='': must name the environment, the policy does not know it")
    instance = make(env_id, **arguments)
    instance.close()
    return instance.observation_space, instance.action_space
