"""Tell the desk what to do and watch: writes a video and prints whether it was done.

python scripts/simulate.py instruction="lift the red blok" fallback=nearest viewer=true
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from embodied_rl.eval import demonstrate
from embodied_rl.models.sources import open_policy
from envs.config import Config as EnvConfig
from envs.desk import instructions, speech
from envs.suites import make_vec
from rl_core import config
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """What to do, who does it, and where to see it."""

    instruction: str = MISSING
    policy: str = "expert"  # expert | directory | SB3 .zip
    trust: bool = False  # SB3 files contain pickles
    fallback: str = "error"  # unknown words: error | nearest (guess the task, and say so)
    human: str = ""  # further sentences: "calvin", or a YAML of `task: [sentence, ...]`
    out: str = "runs/simulate.mp4"
    seed: int = 0
    steps: int = 150  # at most, of 0.1 s
    gl: str = ""  # draw the video with OpenGL by egl | osmesa instead of rays
    viewer: bool = False  # MuJoCo's web viewer, open to anyone who can reach its port
    port: int = 0  # of the viewer; 0: the first free one from 8080

    def __post_init__(self) -> None:
        """Check ranges."""
        config.choice("fallback", self.fallback, ["error", "nearest"])
        config.require(self.steps >= 1, "steps", self.steps, "at least 1")


def main(cfg: Config) -> None:
    """Understand, act, film."""
    meaning = instructions.understood(cfg.instruction, cfg.human, cfg.fallback, console.print)
    console.print(f"task: {meaning.task} {meaning.color}")
    endless = {"terminate_on_success": False, "max_episode_steps": 10_000, "gl": cfg.gl}
    desk = EnvConfig(kwargs=speech.environment(meaning) | endless)
    policy, spec = open_policy(cfg.policy, desk, trust=cfg.trust, seed=cfg.seed)
    env = make_vec(spec.env_id, 1, **spec.env_kwargs)
    with demonstrate.web_viewer(env, cfg.port) if cfg.viewer else nullcontext() as viewer:
        how = {"seed": cfg.seed, "max_steps": cfg.steps, "caption": cfg.instruction, "viewer": viewer}
        done = demonstrate.film(policy, env, Path(cfg.out), **how)
        console.print(f"success: {done.success} after {done.steps} actions; video: {done.path}")
        if viewer:
            demonstrate.keep_open(viewer)


if __name__ == "__main__":
    config.main("simulate", Config, {}, main)
