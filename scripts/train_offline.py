"""Train a policy from a fixed dataset, evaluate it, write the report.

python scripts/train_offline.py algo=iql data.id=desk/lift_block/expert-v0 run.seed=0
python scripts/train_offline.py algo=bc data.id=hopper/medium-v2 env.id=Hopper-v5
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

import envs.config
from embodied_rl.data import minari_io, transitions
from embodied_rl.eval import evaluator, results
from embodied_rl.models.policy import ActorPolicy
from embodied_rl.models.sources import placed
from embodied_rl.offline import bc, cql, iql, td3_bc
from rl_core import config
from rl_core import run as runs
from rl_core.progress import console

ALGORITHMS = {"bc": bc, "td3_bc": td3_bc, "iql": iql, "cql": cql}


@dataclass(kw_only=True, slots=True)
class Config:
    """Everything that decides a run."""

    algo: Any = MISSING
    data: transitions.Config = field(default_factory=transitions.Config)
    env: envs.config.Config = field(default_factory=envs.config.Config)  # to evaluate in
    eval: evaluator.Config = field(default_factory=evaluator.Config)
    run: runs.Config = field(default_factory=runs.Config)


def main(cfg: Config) -> None:
    """Load, train, save the policy, evaluate, report."""
    name, algorithm = next((n, m) for n, m in ALGORITHMS.items() if isinstance(cfg.algo, m.Config))
    places = {"root": cfg.data.root or None, "cache_root": cfg.data.cache_root or None}
    episodes = minari_io.load(cfg.data.id, download=cfg.data.download, **places)
    spec = placed(transitions.select_fields(episodes, cfg.data.obs_keys), cfg.env)
    default_dir = f"runs/{cfg.data.id.replace('/', '-')}/{name}-seed{cfg.run.seed}"
    with (
        evaluator.open_evaluator(cfg.eval, spec, episodes.metadata) as evaluation,
        runs.Run(cfg.run, config=cfg, default_dir=default_dir) as run,
    ):
        data = transitions.Transitions(episodes, cfg.data, run.device)

        def policy(agent: Any) -> ActorPolicy:
            return ActorPolicy(agent.actor, spec, data.normalizer, seed=cfg.run.seed)

        agent = algorithm.train(cfg.algo, data, run, lambda agent: evaluation.curve(policy(agent)))
        policy(agent).save(run.dir / "policy")
        console.print(results.headline(evaluation.final(policy(agent), run.dir)))
    console.print(f"report: {run.dir / 'report.html'}")


if __name__ == "__main__":
    config.main("train_offline", Config, {"algo": {n: m.Config for n, m in ALGORITHMS.items()}}, main)
