"""The medium-replay data of the learning comparison: everything a SAC agent did in its first 100,000 steps.

python -m benchmarks.make_hopper_replay runs/hopper        writes sac.zip and replay.pkl, about 20 minutes
python -m benchmarks.make_hopper_replay runs/quick 500     the same of 500 steps, to see that it works
python scripts/import_dataset.py format=sb3_replay path=runs/hopper/replay.pkl trust=true \\
    data.id=hopper/medium-replay-v0 env_id=Hopper-v5
"""

import sys
from pathlib import Path

import gymnasium as gym
import torch
from stable_baselines3 import SAC


def main(directory: Path, steps: int = 100_000) -> None:
    torch.set_num_threads(1)
    agent = SAC("MlpPolicy", gym.make("Hopper-v5"), seed=0, device="cpu", verbose=1)
    agent.learn(steps, log_interval=50, progress_bar=True)
    agent.save(directory / "sac")
    agent.save_replay_buffer(directory / "replay")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
