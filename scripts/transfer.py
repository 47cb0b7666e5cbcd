"""Train nominally, with fixed ranges, with ADR and with identified ranges; try all on held-out realities.

python scripts/transfer.py +experiment=transfer_lift_block                 # hours; call it again to go on
python scripts/transfer.py +experiment=transfer_lift_block 'transfer.methods=[nominal,fixed]' run.steps=100
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

import envs.config
from embodied_rl.online import ppo
from embodied_rl.online import rollout as rollouts
from embodied_rl.sim2real import adr as adrs
from embodied_rl.sim2real import randomization as ranges
from embodied_rl.sim2real import transfer as transfers
from rl_core import config
from rl_core import run as runs
from rl_core.progress import console

ALGORITHMS = {"ppo": ppo}


@dataclass(kw_only=True, slots=True)
class Config:
    """Everything that decides the comparison; `run.dir` holds it."""

    algo: Any = MISSING
    env: envs.config.Config = field(default_factory=envs.config.Config)
    rollout: rollouts.Config = field(default_factory=rollouts.Config)
    randomization: ranges.Config = field(default_factory=ranges.Config)
    adr: adrs.Config = field(default_factory=adrs.Config)
    transfer: transfers.Config = field(default_factory=transfers.Config)
    run: runs.Config = field(default_factory=runs.Config)


def main(cfg: Config) -> None:
    """Compare, print the table."""
    directory = Path(cfg.run.dir or "runs/transfer")
    how = transfers.Training(
        algo=cfg.algo,
        rollout=cfg.rollout,
        run=cfg.run,
        ranges=cfg.randomization,
        adr=cfg.adr,
        env=cfg.env.arguments(),
    )
    table = transfers.compare(cfg.transfer, how, directory, cfg)
    console.print(table.markdown(), soft_wrap=True)
    console.print(f"report: {directory / 'report.html'}")


if __name__ == "__main__":
    config.main("transfer", Config, {"algo": {n: m.Config for n, m in ALGORITHMS.items()}}, main)
