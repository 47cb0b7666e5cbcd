"""Train a language model on rewards of its own responses: PPO, GRPO's family, REINFORCE's, best-of-n.

python scripts/align_online.py +experiment=dapo model.name=runs/sft/model data.source=problems.jsonl
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from llm_align.eval.held_out import calibrate, held_out, logged, write
from llm_align.feedback import rewards as reward_functions
from llm_align.models import loading
from llm_align.monitors import monitor as monitors
from llm_align.online import best_of_n, grpo, ppo, prompts, reinforce, trpo
from llm_align.online import rollout as rollouts
from rl_core import config
from rl_core import run as runs
from rl_core.progress import console

ALGORITHMS = {"grpo": grpo, "ppo": ppo, "reinforce": reinforce, "trpo": trpo, "best_of_n": best_of_n}


@dataclass(kw_only=True, slots=True)
class Config:
    """Everything that decides a run."""

    algo: Any = MISSING
    model: loading.Config = field(default_factory=loading.Config)
    data: prompts.Config = field(default_factory=prompts.Config)
    rollout: rollouts.Config = field(default_factory=rollouts.Config)
    rewards: reward_functions.Config = field(default_factory=reward_functions.Config)
    environment: str = ""  # file.py:function that answers the policy's turns (rollout.max_turns of them)
    monitor: monitors.Config = field(default_factory=monitors.Config)
    run: runs.Config = field(default_factory=runs.Config)


def main(cfg: Config) -> None:
    """Read, train, save the model, say how it does on what was held out (or, if nothing was, on all)."""
    name, algorithm = next((n, m) for n, m in ALGORITHMS.items() if isinstance(cfg.algo, m.Config))
    prompts.check_demonstrations(cfg.data, name)
    asked = prompts.read(cfg.data)
    rewards = reward_functions.load(cfg.rewards, runs.pick_device(cfg.run.device), watched=cfg.monitor.gold)
    folder = f"runs/{name}-seed{cfg.run.seed}"
    with runs.Run(cfg.run, config=cfg, default_dir=folder, may_change=("monitor",), shared=True) as run:
        policy, tokenizer = prompts.load_model(cfg.model, cfg.data.max_length + cfg.rollout.limit)
        trained, kept = prompts.tokenize(cfg.data, tokenizer, asked)
        world = reward_functions.from_file(cfg.environment, "environment") if cfg.environment else None
        given = {"tokenizer": tokenizer, "rewards": rewards, "config": cfg.rollout, "environment": world}
        task, test = (rollouts.Task(prompts=part, **given) for part in (trained, kept or trained))
        options: dict[str, Any] = {"evaluate": lambda a: held_out(test, a.policy, cfg.run.seed, run.device)}
        calibrate(test, policy, run, cfg.rewards.calibrate)
        options |= prompts.demonstrations(cfg.data, tokenizer)
        agent = algorithm.train(cfg.algo, task, policy, run, monitor=monitors.Monitor(cfg.monitor), **options)
        loading.save(agent.policy, tokenizer, run.dir / "model")
        console.print(write(logged(run.dir), run.dir), f"model: {run.dir / 'model'}", sep="\n")


if __name__ == "__main__":
    config.main("align_online", Config, {"algo": {n: m.Config for n, m in ALGORITHMS.items()}}, main)
