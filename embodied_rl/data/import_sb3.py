"""Stable-Baselines3 replay buffers to Minari: all that an agent did while it learned (medium-replay)."""

from __future__ import annotations

from pathlib import Path

from embodied_rl.data.collect import info_of
from embodied_rl.data.recorder import Recorder
from embodied_rl.models.sb3 import load_replay_buffer, replay_to_minari
from envs.suites import make_vec


def import_replay_buffer(
    path: Path | str,
    dataset_id: str,
    root: Path | str | None = None,
    *,
    env_id: str,
    trust: bool = False,
    max_episode_steps: int | None = None,
    overwrite: bool = False,
) -> int:
    """Convert what `model.save_replay_buffer(path)` wrote; return the number of episodes.

    `env_id` is where the agent acted; `max_episode_steps` is needed for a buffer without timeouts. The file
    is a pickle: raises ValueError without `trust`.
    """
    buffer = load_replay_buffer(Path(path), trust=trust)
    env = make_vec(env_id, 1)
    info = info_of(env, algorithm_name="Stable-Baselines3 replay buffer")
    env.close()
    with Recorder(dataset_id, info, root, overwrite=overwrite) as recorder:
        replay_to_minari(buffer, recorder, time_limit=max_episode_steps)
    return recorder.num_episodes
