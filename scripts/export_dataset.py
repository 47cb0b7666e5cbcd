"""Convert a Minari dataset to another project's format.

python scripts/export_dataset.py data.id=desk/lift_block/expert-v0 path=lerobot/lift
python scripts/export_dataset.py data.id=desk/calvin/images-v0 path=lerobot/calvin video=true robot_type=panda

`scripts/import_dataset.py format=lerobot` is the way back.
"""

from dataclasses import dataclass, field

from omegaconf import MISSING

from embodied_rl.data.lerobot import export
from rl_core import config
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Source:
    """A local Minari dataset."""

    id: str = MISSING
    root: str = ""  # empty: MINARI_DATASETS_PATH, else Minari's own folder


@dataclass(kw_only=True, slots=True)
class Config:
    """A dataset, the folder it goes to, and how."""

    data: Source = field(default_factory=Source)
    format: str = "lerobot"  # LeRobotDataset v3.0
    path: str = MISSING
    video: bool = False  # images as mp4, smaller and not quite the same pixels; else as PNG, without loss
    fps: int = 10  # control frequency; the desk's is 10
    robot_type: str = ""
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check names."""
        config.choice("format", self.format, ["lerobot"])


def main(cfg: Config) -> None:
    """Convert and say how much."""
    how = {"fps": cfg.fps, "robot_type": cfg.robot_type, "video": cfg.video, "overwrite": cfg.overwrite}
    episodes = export(cfg.data.id, cfg.path, root=cfg.data.root or None, **how)
    console.print(f"{cfg.path}: {episodes} episodes")


if __name__ == "__main__":
    config.main("export_dataset", Config, {}, main)
