"""Draw the pictures of the documentation: `python docs/figures/make.py`."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from envs.desk.env import DeskEnv
from envs.desk.experts import Expert

HERE = Path(__file__).parent
MOMENTS = (0, 8, 15)  # control steps: before, grasped, set down


def desk() -> None:
    """Three moments of the scripted expert placing a block, side by side."""
    env = DeskEnv("place_block", render_mode="rgb_array")
    expert = Expert("place_block")
    obs, _ = env.reset(seed=3)
    frames = []
    for step in range(MOMENTS[-1] + 1):
        if step in MOMENTS:
            frames.append(env.render())
        batched = {key: value[None] for key, value in obs.items()}
        obs, *_ = env.step(expert.act(batched, deterministic=True)[0])
    iio.imwrite(HERE / "desk.png", np.concatenate(frames, axis=1))


if __name__ == "__main__":
    desk()
