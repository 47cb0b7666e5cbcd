"""Evaluate a language model: reward, pass@k, win rate and KL against another, lm-eval, KL-reward frontier.

python scripts/evaluate_language.py model.name=runs/ppo/model against=runs/sft/model \\
    data.source=pairs.jsonl data.held_out=0.5 'rewards.functions=[runs/judge/model]'
python scripts/evaluate_language.py model.name=runs/ppo/model 'tasks=[arc_easy,hellaswag]'
python scripts/evaluate_language.py 'frontier=[runs/ppo,runs/grpo]' frontier_reward=train/gold
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm_align.eval import compare, frontier, held_out, lm_eval
from llm_align.feedback import rewards as reward_functions
from llm_align.models import loading
from llm_align.online import prompts
from llm_align.online import rollout as rollouts
from rl_core import config
from rl_core.run import pick_device


@dataclass(kw_only=True, slots=True)
class Config:
    """What is evaluated, and on what: prompts with rewards, tasks of lm-eval, or finished runs."""

    model: loading.Config = field(default_factory=loading.Config)
    against: str = ""  # another model with the same tokenizer: win rate over it, KL from it
    judge: str = ""  # file.py:function of (prompts, first, second); empty: the higher reward wins
    data: prompts.Config = field(default_factory=prompts.Config)  # of a split, the held-out prompts
    rollout: rollouts.Config = field(default_factory=rollouts.Config)
    rewards: reward_functions.Config = field(default_factory=reward_functions.Config)
    ks: tuple[int, ...] = ()  # of pass@k, beside 1 and the group
    tasks: tuple[str, ...] = ()  # of lm-eval (extra `lm-eval`)
    tasks_path: str = ""  # folder with tasks of one's own
    tasks_limit: int = 0  # documents of each; 0: all
    frontier: tuple[str, ...] = ()  # directories of online runs: which steps no other one beats
    frontier_reward: str = "train/reward"
    out: str = "runs/evaluate-language"
    seed: int = 0
    device: str = "auto"


def main(cfg: Config) -> None:
    """Do each part that is asked for; write eval.json, and answers.jsonl where answers were compared."""
    asked = cfg.data.source or cfg.tasks or cfg.frontier
    config.require(bool(asked), "data.source", "", "given, or tasks, or frontier")
    out = Path(cfg.out)
    overall: dict[str, float] = {}
    out.mkdir(parents=True, exist_ok=True)
    if cfg.data.source:
        overall |= _on_prompts(cfg, out)
    if cfg.tasks:
        model, tokenizer = prompts.load_model(cfg.model, 1)
        lm = lm_eval.AlignedLM(model.to(pick_device(cfg.device)), tokenizer)
        overall |= lm_eval.evaluate(lm, cfg.tasks, cfg.tasks_path, cfg.tasks_limit)
    if overall:
        print(held_out.write(overall, out))
    points = [point for run in cfg.frontier for point in frontier.points(run, reward=cfg.frontier_reward)]
    for point in frontier.frontier(points):
        print(json.dumps(asdict(point)))


def _on_prompts(cfg: Config, out: Path) -> dict[str, float]:
    device = pick_device(cfg.device)
    rewards = reward_functions.load(cfg.rewards, device)
    judge: Any = reward_functions.from_file(cfg.judge, "judge") if cfg.judge else None
    policy, tokenizer = prompts.load_model(cfg.model, cfg.data.max_length + cfg.rollout.limit)
    rest, kept = prompts.tokenize(cfg.data, tokenizer, prompts.read(cfg.data))
    task = rollouts.Task(prompts=kept or rest, tokenizer=tokenizer, rewards=rewards, config=cfg.rollout)
    policy = policy.to(device)
    if not cfg.against:
        return held_out.summary(held_out.draw(task, policy, cfg.seed, device), cfg.ks)
    other = loading.load_reference(cfg.against, tokenizer).to(device)
    numbers, answers = compare.compare(task, policy, other, judge, seed=cfg.seed, ks=cfg.ks)
    (out / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    return numbers


if __name__ == "__main__":
    config.main("evaluate_language", Config, {}, main)
