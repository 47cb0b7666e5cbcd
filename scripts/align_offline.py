"""Align a language model on a fixed dataset: supervised tuning, or any member of the DPO family.

python scripts/align_offline.py algo=dpo data.source=pairs.jsonl model.name=runs/sft/model run.steps=500
torchrun --nproc_per_node=8 scripts/align_offline.py algo=dpo run.distributed=fsdp2 ...
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from llm_align.data import loader
from llm_align.eval.held_out import logged, write
from llm_align.models import loading
from llm_align.offline import dpo, sft
from rl_core import config
from rl_core import run as runs
from rl_core.progress import console

ALGORITHMS: dict[str, Any] = {"sft": sft.Config, "dft": sft.Config(name="dft", loss="dft"), **dpo.MEMBERS}


@dataclass(kw_only=True, slots=True)
class Config:
    """Everything that decides a run."""

    algo: Any = MISSING
    model: loading.Config = field(default_factory=loading.Config)
    reference: str = ""  # another model as the reference; empty: the policy as it comes in
    data: loader.Config = field(default_factory=loader.Config)
    run: runs.Config = field(default_factory=runs.Config)


def main(cfg: Config) -> None:
    """Read, train, save the model, say how it does on what was held out."""
    algorithm: Any = sft if isinstance(cfg.algo, sft.Config) else dpo
    compared = algorithm is dpo and cfg.algo.reference
    config.require(
        compared or not cfg.reference, "reference", cfg.reference, f"empty: {cfg.algo.name} reads none"
    )
    examples = loader.read(cfg.data, lambda rows: algorithm.to_examples(rows, cfg.algo))
    folder = f"runs/{cfg.algo.name}-seed{cfg.run.seed}"
    with runs.Run(cfg.run, config=cfg, default_dir=folder, shared=True) as run:
        policy, tokenizer = loading.load(cfg.model, loader.texts(examples), cfg.data.max_length)
        data, held_out = loader.batches(cfg.data, tokenizer, examples, run)
        options = {}
        if cfg.reference:
            options["reference"] = loading.load_reference(cfg.reference, tokenizer).to(run.device)
        agent = algorithm.train(cfg.algo, policy, data, held_out, run, **options)
        loading.save(agent.policy, tokenizer, run.dir / "model")
        console.print("held out:", write(logged(run.dir), run.dir) or "none")
    console.print(f"model: {run.dir / 'model'}")


if __name__ == "__main__":
    config.main("align_offline", Config, {"algo": ALGORITHMS}, main)
