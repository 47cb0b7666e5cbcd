"""Train a reward model on judgements, report its accuracy and calibration on what was held out.

python scripts/train_reward_model.py data.source=pairs.jsonl model.backbone=encoder model.name=minilm
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from llm_align.data import loader
from llm_align.eval.choosing import choosers
from llm_align.eval.held_out import logged
from llm_align.feedback import reward_model, scorer, steps
from llm_align.feedback.trained import RewardModel
from rl_core import config
from rl_core import run as runs
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """Everything that decides a run."""

    algo: reward_model.Config = field(default_factory=reward_model.Config)
    model: scorer.Config = field(default_factory=scorer.Config)
    data: loader.Config = field(default_factory=loader.Config)
    run: runs.Config = field(default_factory=runs.Config)


def main(cfg: Config) -> None:
    """Read, train, save the reward model, report."""
    process = cfg.algo.objective == "process"
    examples = loader.read(cfg.data, reward_model.EXAMPLES[cfg.algo.objective])
    default_dir = f"runs/reward-{cfg.algo.objective}-seed{cfg.run.seed}"
    with runs.Run(cfg.run, config=cfg, default_dir=default_dir, shared=True) as run:
        model, tokenizer = scorer.build(cfg.model, loader.texts(examples), cfg.data.max_length)
        tokenize = steps.tokenize if process else loader.tokenize
        data, held_out = loader.batches(cfg.data, tokenizer, examples, run, tokenize)
        agent = reward_model.train(cfg.algo, model, data, held_out, run)
        aggregation = cfg.algo.aggregation if process else None
        RewardModel(agent.scorer, tokenizer, cfg.data, aggregation).save(run.dir / "model")
        overall: dict[str, Any] = {}
        if held_out:
            overall = logged(run.dir)
            if cfg.algo.objective in ("pairwise", "listwise"):
                overall |= asdict(reward_model.report(agent, held_out))
            if cfg.algo.objective == "outcome":
                rated = [item.example for item in held_out.encoded]
                overall["questions"] = len({str(example.prompt) for example in rated})
                overall["best_of_n"] = choosers(rated, reward_model.rate(agent, held_out))
        run.write("eval.json", {"overall": overall})
    console.print_json(data=overall)
    console.print(f"model: {run.dir / 'model'}")


if __name__ == "__main__":
    config.main("train_reward_model", Config, {}, main)
