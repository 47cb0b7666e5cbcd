"""Evaluate a language model: reward, pass@k, win rate and KL against another, lm-eval, KL-reward frontier.

python scripts/evaluate_language.py model.name=runs/ppo/model against=runs/sft/model \\
    data.source=pairs.jsonl data.held_out=0.5 'rewards.functions=[runs/judge/model]'
python scripts/evaluate_language.py model.name=runs/ppo/model 'tasks=[arc_easy,hellaswag]'
python scripts/evaluate_language.py 'frontier=[runs/ppo,runs/grpo]' frontier_reward=train/gold
"""

import json
from dataclasses import asdict
from pathlib import Path

from llm_align.eval import frontier, held_out, lm_eval
from llm_align.eval.language import Config, on_prompts
from llm_align.online import prompts
from rl_core import config
from rl_core.run import pick_device


def main(cfg: Config) -> None:
    """Do each part that is asked for; write eval.json, and answers.jsonl where answers were compared."""
    asked = cfg.data.source or cfg.tasks or cfg.frontier
    config.require(bool(asked), "data.source", "", "given, or tasks, or frontier")
    out = Path(cfg.out)
    overall: dict[str, float] = {}
    out.mkdir(parents=True, exist_ok=True)
    if cfg.data.source:
        overall |= on_prompts(cfg, out)
    if cfg.tasks:
        model, tokenizer = prompts.load_model(cfg.model, 1)
        lm = lm_eval.AlignedLM(model.to(pick_device(cfg.device)), tokenizer)
        overall |= lm_eval.evaluate(lm, cfg.tasks, cfg.tasks_path, cfg.tasks_limit)
    if overall:
        print(held_out.write(overall, out))
    points = [point for run in cfg.frontier for point in frontier.points(run, reward=cfg.frontier_reward)]
    for point in frontier.frontier(points):
        print(json.dumps(asdict(point)))


if __name__ == "__main__":
    config.main("evaluate_language", Config, {}, main)
