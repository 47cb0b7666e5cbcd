"""Record episodes of a policy as a Minari dataset.

python scripts/collect_demos.py data.id=desk/lift_block/expert-v0 episodes=200
python scripts/collect_demos.py data.id=desk/place_block/mixed-v0 env.task=place_block noise=[0,0.3,0.6]
python scripts/collect_demos.py data.id=hopper/medium-v0 env.id=Hopper-v5 policy=sac.zip trust=true
"""

from dataclasses import dataclass, field

from omegaconf import MISSING

import envs.config
from embodied_rl.data import collect
from embodied_rl.models.sources import open_policy
from envs.suites import make_vec
from rl_core import config
from rl_core.config import require
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Data:
    """Where the dataset goes."""

    id: str = MISSING  # namespace/name-v0
    root: str = ""  # empty: MINARI_DATASETS_PATH, else Minari's folder
    overwrite: bool = False


@dataclass(kw_only=True, slots=True)
class Config:
    """Who acts, where, how often and how badly."""

    policy: str = "expert"  # expert | directory | SB3 .zip
    trust: bool = False  # SB3 files contain pickles
    episodes: int = 200
    noise: tuple[float, ...] = (0.0,)  # of the expert's actions; several: equal shares of the episodes
    num_envs: int = 16
    seed: int = 0
    env: envs.config.Config = field(default_factory=envs.config.Config)
    data: Data = field(default_factory=Data)

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.episodes >= 1, "episodes", self.episodes, "at least 1")


def main(cfg: Config) -> None:
    """Open the policies, act, write."""
    raise SystemExit("written once embodied_rl.data.collect is there")


if __name__ == "__main__":
    config.main("collect_demos", Config, {}, main)
