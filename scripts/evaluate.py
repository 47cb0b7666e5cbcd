"""Evaluate a policy over seeded episodes; write eval.json, videos and a report page.

python scripts/evaluate.py policy=runs/desk-lift_block-expert-v0/iql-seed0 eval.episodes=200
python scripts/evaluate.py policy=expert env.id=embodied/Desk-v0 env.task=place_block
python scripts/evaluate.py policy=runs/transfer/fixed-seed0 reality=worn_arm
python scripts/evaluate.py policy=sac.zip trust=true env.id=Hopper-v5 vec_normalize=statistics.pkl
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

import envs.config
from embodied_rl.eval import evaluator, results
from embodied_rl.models.sources import open_policy
from embodied_rl.sim2real import realities
from rl_core import config
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """A policy, an environment, and which episodes count."""

    policy: str = MISSING  # expert | directory | SB3 .zip
    trust: bool = False  # SB3 files contain pickles
    vec_normalize: str = ""  # SB3: what VecNormalize.save wrote beside the model
    out: str = ""  # empty: runs/evaluate/ and the name of the policy, and of the reality
    reality: str = ""  # a held-out desk of embodied_rl.sim2real.realities
    env: envs.config.Config = field(default_factory=envs.config.Config)
    eval: evaluator.Config = field(default_factory=evaluator.Config)


def main(cfg: Config) -> None:
    """Open, evaluate, report."""
    policy, spec = open_policy(
        cfg.policy, cfg.env, trust=cfg.trust, vec_normalize=cfg.vec_normalize, seed=cfg.eval.seed
    )
    name = "-".join(word for word in (cfg.policy.strip("./").replace("/", "-"), cfg.reality) if word)
    out = Path(cfg.out or f"runs/evaluate/{name}")
    with evaluator.Evaluator(cfg.eval, spec, make=realities.maker(cfg.reality)) as evaluation:
        console.print(results.headline(evaluation.final(policy, out)))
    console.print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    config.main("evaluate", Config, {}, main)
