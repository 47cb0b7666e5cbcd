"""Record episodes of a policy as a Minari dataset.

python scripts/collect_demos.py data.id=desk/lift_block/expert-v0 episodes=200
python scripts/collect_demos.py data.id=desk/drawn/images-v0 randomization=vision 'env.kwargs={obs: rgb}'
python scripts/collect_demos.py data.id=hopper/medium-v0 env.id=Hopper-v5 policy=sac.zip trust=true
"""

from dataclasses import dataclass, field

import numpy as np

import envs.config
from embodied_rl.data import collect
from embodied_rl.data.recorder import Recorder, Target
from embodied_rl.models.sources import open_policy
from embodied_rl.sim2real.models import Config as Ranges
from embodied_rl.sim2real.models import open_drawn
from rl_core import config
from rl_core.config import require
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """Who acts, where, how often and how badly."""

    policy: str = "expert"  # expert | directory | SB3 .zip
    trust: bool = False  # SB3 files contain pickles
    vec_normalize: str = ""  # SB3: what VecNormalize.save wrote beside the model
    episodes: int = 200
    noise: tuple[float, ...] = (0.0,)  # std of actions over half their range; one share of episodes each
    mistakes: float = 0.0  # the expert's: chance per action to do something wrong for a while
    num_envs: int = 64
    seed: int = 0
    env: envs.config.Config = field(default_factory=envs.config.Config)
    data: Target = field(default_factory=Target)
    randomization: Ranges = field(default_factory=Ranges)  # an episode's metadata hold its draw

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.episodes >= len(self.noise) > 0, "episodes", self.episodes, "one per noise or more")


def main(cfg: Config) -> None:
    """Let the policies act, write what happened."""
    shares = np.diff(np.linspace(0, cfg.episodes, len(cfg.noise) + 1).astype(int))
    how = {"trust": cfg.trust, "vec_normalize": cfg.vec_normalize, "mistakes": cfg.mistakes}
    policy, spec = open_policy(cfg.policy, cfg.env, seed=cfg.seed, **how)
    env = open_drawn(spec.env_id, min(cfg.num_envs, cfg.episodes), cfg.randomization, **spec.env_kwargs)
    info = collect.info_of(env, algorithm_name=cfg.policy)
    with Recorder(cfg.data.id, info, cfg.data.root or None, overwrite=cfg.data.overwrite) as out:
        for noise, share in zip(cfg.noise, shares, strict=True):
            part = {"episodes": int(share), "seed": cfg.seed + out.num_episodes, "noise": noise}
            done = collect.record(policy, env, out, deterministic=False, **part)
            console.print(f"noise {noise:g}: {done}")
    console.print(f"{cfg.data.id}: {out.num_episodes} episodes, {out.num_steps} steps")


if __name__ == "__main__":
    config.main("collect_demos", Config, {}, main)
