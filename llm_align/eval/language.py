"""The evaluation of a language model: its configuration, and its answers, alone or against another.

Tasks of lm-eval are in `lm_eval.py`, trade-offs of finished runs in `frontier.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_align.eval import compare, held_out
from llm_align.feedback import rewards as reward_functions
from llm_align.models import loading
from llm_align.online import prompts
from llm_align.online import rollout as rollouts
from rl_core.config import require
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


def on_prompts(cfg: Config, out: Path) -> dict[str, float]:
    """Answer the prompts of `cfg.data`; returns numbers and, of a comparison, writes out/answers.jsonl."""
    device, calibrate = pick_device(cfg.device), cfg.rewards.calibrate
    require(calibrate == 0, "rewards.calibrate", calibrate, "0: what is compared is scored on one scale")
    size = cfg.rollout.group_size
    require(all(1 <= k <= size for k in cfg.ks), "ks", cfg.ks, f"from 1 to rollout.group_size={size}")
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
