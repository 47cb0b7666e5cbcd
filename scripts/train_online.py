"""Train a policy from its own rollouts, evaluate it, write the report.

python scripts/train_online.py algo=ppo env=desk task=lift_block randomization=dactyl
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

import envs.config
from embodied_rl.eval import evaluator, results
from embodied_rl.feedback import preference_ppo
from embodied_rl.models.policy import ActorPolicy
from embodied_rl.online import finetune, ppo, sac
from embodied_rl.sim2real import training
from rl_core import config
from rl_core import run as runs
from rl_core.progress import console

ALGORITHMS = {"ppo": ppo, "sac": sac, "finetune": finetune, "preference_ppo": preference_ppo}


@dataclass(kw_only=True, slots=True)
class Config:
    """Everything that decides a run."""

    algo: Any = MISSING
    env: envs.config.Config = field(default_factory=envs.config.Config)  # an empty id is the desk
    task: str = ""  # short for env.task
    randomization: training.randomization.Config = field(default_factory=training.randomization.Config)
    adr: training.adrs.Config = field(default_factory=training.adrs.Config)
    rollout: training.rollout.Config = field(default_factory=training.rollout.Config)
    eval: evaluator.Config = field(default_factory=evaluator.Config)
    run: runs.Config = field(default_factory=runs.Config)


def main(cfg: Config) -> None:
    """Make the environments, train, save the policy, evaluate, report."""
    name, algo = next((n, m) for n, m in ALGORITHMS.items() if type(cfg.algo) is m.Config)
    cfg.env = finetune.place(cfg.algo, cfg.env, cfg.rollout) if algo is finetune else cfg.env
    folder = f"runs/{cfg.env.task or cfg.env.id.rpartition('/')[2] or 'Desk-v0'}/{name}-seed{cfg.run.seed}"
    with (
        training.open_world(cfg.env, cfg.rollout, cfg.randomization, cfg.adr) as world,
        evaluator.open_evaluator(cfg.eval, world.spec) as test,
        runs.Run(cfg.run, config=cfg, default_dir=folder, fixed=training.rollout.FIXED) as run,
    ):

        def policy(agent: Any) -> ActorPolicy:
            return ActorPolicy(agent.actor, world.spec, agent.normalizer(), seed=cfg.run.seed)

        agent = algo.train(cfg.algo, world, run, lambda a: test.curve(policy(a)) | training.metrics(world))
        policy(agent).save(run.dir / "policy")
        training.draw(world, run.dir)
        console.print(results.headline(test.final(policy(agent), run.dir)))
    console.print(f"report: {run.dir / 'report.html'}")


if __name__ == "__main__":
    config.main("train_online", Config, {"algo": {n: m.Config for n, m in ALGORITHMS.items()}}, main)
