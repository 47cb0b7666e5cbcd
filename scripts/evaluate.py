"""Evaluate a policy over seeded episodes; write eval.json, videos and a report page.

python scripts/evaluate.py policy=runs/desk-lift_block-expert-v0/iql-seed0 eval.episodes=200
python scripts/evaluate.py policy=expert env.id=embodied/Desk-v0 env.task=place_block
python scripts/evaluate.py policy=sac.zip trust=true env.id=Hopper-v5
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

import envs.config
from embodied_rl.eval import evaluator, results
from embodied_rl.models.sources import open_policy
from rl_core import config
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """A policy, an environment, and which episodes count."""

    policy: str = MISSING  # expert | directory | SB3 .zip
    trust: bool = False  # SB3 files contain pickles
    out: str = "runs/evaluate"
    env: envs.config.Config = field(default_factory=lambda: envs.config.Config(id=""))  # empty: as trained
    eval: evaluator.Config = field(default_factory=evaluator.Config)


def main(cfg: Config) -> None:
    """Open, evaluate, report."""
    policy, spec = open_policy(cfg.policy, cfg.env, trust=cfg.trust, seed=cfg.eval.seed)
    content = evaluator.Evaluator(cfg.eval, spec).final(policy, Path(cfg.out))
    console.print(results.headline(content))
    console.print(f"report: {Path(cfg.out) / 'report.html'}")


if __name__ == "__main__":
    config.main("evaluate", Config, {}, main)
