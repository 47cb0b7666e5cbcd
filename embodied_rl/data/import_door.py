"""The human door-opening demonstrations of hand_dapg (Rajeswaran et al. 2018) as a Minari dataset.

What is repaired, and recorded in the dataset's metadata:
- Actions are clipped to [-1, 1], as the environment does; 5.6 % of the recorded entries lie outside.
- `rewards[t]` belongs to the state after action t and there is no final observation: an episode of T recorded
  steps becomes T - 1 transitions with T observations.
- The recorded initial state is all zeros and not the state of the first observation. It is computed from that
  observation and stored as the episode's `options`, so that `env.reset(options=...)` starts the replay.
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np

from embodied_rl.data.recorder import Info, Recorder
from envs.suites import check_id
from rl_core.progress import counting

ENV_ID = "AdroitHandDoor-v1"
MAX_EPISODE_STEPS = 300  # the longest demonstration; the environment's default of 200 cuts most of them
_REPAIRS = (
    "actions clipped to [-1, 1]",
    "last recorded step dropped: it has no successor",
    "initial state computed from the first observation (options/initial_state_dict)",
    "all episodes truncated: the recordings have no terminal flags",
    "rewards as recorded: the hand-to-handle term has the sign of the original environment (-0.1)",
)


def import_door_demonstrations(
    path: Path | str, dataset_id: str, root: Path | str | None = None, *, overwrite: bool = False
) -> int:
    """Convert `demos.npz`; return the number of episodes. Raises ValueError when the file is another one."""
    try:
        demos = {key: np.asarray(value) for key, value in np.load(path).items()}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz file ({error})") from error
    missing = {"observations", "actions", "rewards", "lengths", "door_body_pos"} - demos.keys()
    if missing:
        raise ValueError(
            f"{path}: fields {sorted(missing)} are missing, these are not the door demonstrations"
        )
    check_id(ENV_ID)  # registers it
    env_spec = dataclasses.replace(gym.spec(ENV_ID), max_episode_steps=MAX_EPISODE_STEPS)
    env = gym.make(env_spec)
    info = Info(
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env_spec,
        eval_env_spec=gym.spec(ENV_ID),  # with D4RL's limit of 200, which published scores are measured at
        algorithm_name="human tele-operation",
        author=("Aravind Rajeswaran", "Vikash Kumar"),
        code_permalink="https://github.com/aravindr93/hand_dapg",
        description="25 human demonstrations of the Adroit hand opening a door (D4RL door-human)",
        requirements=("gymnasium-robotics>=1.4.2",),
        extra={"repairs": list(_REPAIRS)},
    )
    ends = np.cumsum(demos["lengths"])
    parts = zip(ends - demos["lengths"], ends, demos["door_body_pos"], strict=True)
    with (
        Recorder(dataset_id, info, root, overwrite=overwrite) as recorder,
        counting("importing", len(ends)) as progress,
    ):
        for start, end, door in parts:
            obs = demos["observations"][start:end].astype(np.float64)
            steps = len(obs) - 1
            recorder.add_episode(
                obs,
                demos["actions"][start : end - 1].clip(-1.0, 1.0),
                rewards=demos["rewards"][start : end - 1],
                terminations=np.zeros(steps, bool),
                truncations=np.arange(steps) == steps - 1,
                metadata={"options": {"initial_state_dict": initial_state(env, obs[0], door)}},
            )
            progress(recorder.num_episodes)
    env.close()
    return len(ends)


def initial_state(env: gym.Env, obs: np.ndarray, door_body_pos: np.ndarray) -> dict[str, np.ndarray]:
    """State `qpos [30]`, `qvel [30]`, `door_body_pos [3]` of which `obs [39]` is the observation, at rest.

    Every position but that of the slide under the arm is part of the observation; the slide moves the palm
    along a line, so it follows from the observed palm position by least squares.
    """
    qpos = np.zeros(30)
    qpos[1:28] = obs[:27]
    qpos[28] = obs[28]  # hinge
    qpos[29] = obs[27]  # latch
    palm_at_zero, palm_at_one = (_palm(env, slide, qpos, door_body_pos) for slide in (0.0, 1.0))
    direction = palm_at_one - palm_at_zero
    qpos[0] = direction @ (obs[29:32] - palm_at_zero) / (direction @ direction)
    return {"qpos": qpos, "qvel": np.zeros(30), "door_body_pos": np.asarray(door_body_pos, np.float64)}


def _palm(env: gym.Env, slide: float, qpos: np.ndarray, door_body_pos: np.ndarray) -> np.ndarray:
    model = env.unwrapped.model  # type: ignore[attr-defined]
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    data.qpos[0] = slide
    model.body("frame").pos = door_body_pos
    mujoco.mj_kinematics(model, data)
    return np.array(data.site("S_grasp").xpos)
