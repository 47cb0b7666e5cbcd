"""Convert other projects' data to a Minari dataset.

python scripts/import_dataset.py format=door path=demos.npz data.id=door/human-v0
python scripts/import_dataset.py format=d4rl path=hopper.hdf5 data.id=hopper/medium-v2 env_id=Hopper-v5
python scripts/import_dataset.py format=lerobot path=lerobot/lift data.id=lerobot/lift-v0
python scripts/import_dataset.py format=sb3_replay path=b.pkl trust=true data.id=h/replay-v0 env_id=Hopper-v5
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from embodied_rl.data.import_d4rl import import_d4rl
from embodied_rl.data.import_door import import_door_demonstrations
from embodied_rl.data.import_lerobot import import_dataset
from embodied_rl.data.import_robomimic import import_robomimic
from embodied_rl.data.import_sb3 import import_replay_buffer
from embodied_rl.data.recorder import Target
from rl_core import config
from rl_core.config import choice, require
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """A file, its format, and where the dataset goes."""

    format: str = MISSING  # door | robomimic | d4rl | lerobot | sb3_replay
    path: str = MISSING
    env_id: str = ""  # d4rl, sb3_replay: the Gymnasium environment it was recorded in
    max_episode_steps: int = 0  # d4rl, sb3_replay: the time limit of files that hold no timeouts
    filter_key: str = ""  # robomimic: a list of demonstrations under mask/
    trust: bool = False  # SB3 files contain pickles
    data: Target = field(default_factory=Target)


def convert(cfg: Config) -> int:
    """Hand each format what it needs; return the number of episodes."""
    choice("format", cfg.format, ["door", "robomimic", "d4rl", "lerobot", "sb3_replay"])
    require(Path(cfg.path).exists(), "path", cfg.path, "an existing file, for lerobot a folder")
    to, again = (cfg.path, cfg.data.id, cfg.data.root or None), cfg.data.overwrite
    limit = cfg.max_episode_steps or None
    if cfg.format in (simple := {"door": import_door_demonstrations, "lerobot": import_dataset}):
        return simple[cfg.format](*to, overwrite=again)
    if cfg.format == "robomimic":
        return import_robomimic(*to, filter_key=cfg.filter_key, overwrite=again)
    if cfg.format == "d4rl":
        return import_d4rl(*to, env_id=cfg.env_id, max_episode_steps=limit, overwrite=again)
    replay = {"env_id": cfg.env_id, "trust": cfg.trust, "max_episode_steps": limit, "overwrite": again}
    return import_replay_buffer(*to, **replay)


def main(cfg: Config) -> None:
    """Convert and say how much."""
    console.print(f"{cfg.data.id}: {convert(cfg)} episodes")


if __name__ == "__main__":
    config.main("import_dataset", Config, {}, main)
