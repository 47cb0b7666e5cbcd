"""Train a reward model on judgements, report its accuracy and calibration on what was held out.

python scripts/train_reward_model.py data.source=pairs.jsonl model.backbone=encoder model.name=minilm
"""

import json
from typing import Any

from llm_align.data import loader
from llm_align.feedback import reward_model, training
from llm_align.feedback.training import Config
from rl_core import config, distributed
from rl_core.progress import console
from rl_core.run import Run, directory


def main(cfg: Config) -> None:
    """Read, train, save the reward model or the ensemble, report."""
    examples = loader.read(cfg.data, reward_model.EXAMPLES[cfg.algo.objective])
    default_dir = f"runs/reward-{cfg.algo.objective}-seed{cfg.run.seed}"
    overall: dict[str, Any]
    if cfg.ensemble > 1:
        folder = directory(cfg.run, default_dir)
        overall = training.train_ensemble(cfg, examples, folder)
        if distributed.rank() == 0:
            (folder / "eval.json").write_text(json.dumps({"overall": overall}, indent=1) + "\n")
    else:
        with Run(cfg.run, config=cfg, default_dir=default_dir, shared=True) as run:
            folder = run.dir
            overall, _ = training.train(cfg, examples, run, folder / "model")
            run.write("eval.json", {"overall": overall})
    console.print_json(data=overall)
    console.print(f"model: {folder / 'model'}")


if __name__ == "__main__":
    config.main("train_reward_model", Config, {}, main)
