"""The chain on HH with a model from scratch: SFT, reward models, DPO and PPO, judged on held-out prompts.

    python -m benchmarks.learning_hh --data harmless-base.jsonl.gz --runs runs/hh

Runs the commands of `docs/alignment.md` (a run that is there already is read) and records what they say. The
judge is a reward model trained on the other half of the conversations, with another seed than the one that
PPO optimises; the prompts are of the judge's half, which the policies have not seen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks import record
from llm_align.eval.accuracy import wilson

OTHER_HALF = ["data.held_out=0.5", "data.fold=0", "run.seed=1"]
ON_PROMPTS = [
    "data.limit=800",
    "data.held_out=0.5",
    "data.fold=1",
    "data.max_length=256",
    "data.too_long=keep_end",
]
SAMPLING = ["rollout.prompts=32", "rollout.group_size=1", "rollout.max_new_tokens=48"]


def commands(data: str, runs: str) -> dict[str, list[str]]:
    """Script and arguments of each run, in order."""
    sft = f"model.name={runs}/sft/model"
    source = f"data.source={data}"
    proxy, judge = (f"{runs}/{name}/model" for name in ("proxy", "judge"))
    found = {
        "sft": ["align_offline", "+experiment=hh_sft_scratch"],
        "proxy": ["train_reward_model", "+experiment=hh_reward_minilm", "data.held_out=0.5", "data.fold=1"],
        "judge": ["train_reward_model", "+experiment=hh_reward_minilm", *OTHER_HALF],
        "scratch": ["train_reward_model", "+experiment=hh_reward_scratch", sft],
        "dpo": ["align_offline", "+experiment=hh_dpo_scratch", sft],
        "ppo": ["align_online", "+experiment=hh_ppo_scratch", sft, f"rewards.functions=[{proxy}]"],
    }
    found["ppo"] += [f"monitor.gold={judge}", "data.limit=800"]
    for name, words in found.items():
        words += [source, "run.threads=1", "run.tensorboard=false", f"run.dir={runs}/{name}"]
    for name in ("dpo", "ppo"):
        words = ["evaluate_language", f"model.name={runs}/{name}/model", f"against={runs}/sft/model", source]
        words += [*ON_PROMPTS, f"rewards.functions=[{judge}]", *SAMPLING, f"out={runs}/{name}-eval"]
        found[f"{name}-eval"] = words
    return found


def result(name: str, words: list[str], runs: str) -> dict[str, Any]:
    """What a run wrote into eval.json, after running it where it has not been."""
    file = record.ROOT / runs / name / "eval.json"
    if not file.exists():
        script, *arguments = words
        subprocess.run([sys.executable, f"scripts/{script}.py", *arguments], check=True, cwd=record.ROOT)
    overall: dict[str, Any] = json.loads(file.read_text())["overall"]
    return overall


def row(what: str, mean: float, interval: tuple[float, float] | None, **settings: Any) -> dict[str, Any]:
    """One line of the table."""
    low, high = interval or (None, None)
    rounded = {key: round(v, 3) if isinstance(v, float) else v for key, v in settings.items()}
    return {
        "algorithm": what,
        "library": "ours",
        "scores": [round(mean, 4)],
        "mean": mean,
        "low": low,
        "high": high,
        "verdict": "",
        "settings": rounded,
    }


def compared(name: str, found: dict[str, float]) -> list[dict[str, Any]]:
    """Win rate over SFT and KL from it."""
    lengths = {"tokens": found["length"], "tokens of SFT": found["other_length"]}
    rewards = {"judge's score": found["reward"], "of SFT": found["other_reward"]}
    interval = (found["win_low"], found["win_high"])
    return [
        row(
            f"{name}: win rate over SFT",
            found["win_rate"],
            interval,
            prompts=found["win_pairs"],
            **rewards,
            **lengths,
        ),
        row(f"{name}: KL from SFT, nats a response", found["kl"], (found["kl_low"], found["kl_high"])),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", default="runs/hh")
    args = parser.parse_args()
    asked = commands(args.data, args.runs)
    found = {name: result(name, words, args.runs) for name, words in asked.items()}
    rows = [row("SFT: held-out perplexity", found["sft"]["perplexity"], None, parameters="3.5 million")]
    models = {
        "proxy": "reward model that PPO optimises (MiniLM)",
        "judge": "judge (MiniLM, other half, other seed)",
        "scratch": "reward model on the SFT model",
    }
    for name, what in models.items():
        report = found[name]
        interval = wilson(report["accuracy"], report["num_pairs"])
        more = {"pairs": report["num_pairs"], "longer wins": report["longer_wins"]}
        rows.append(row(f"{what}: held-out accuracy", report["accuracy"], interval, **more))
    rows.append(row("DPO: held-out accuracy of its implicit reward", found["dpo"]["accuracy"], None))
    rows += compared("DPO", found["dpo-eval"]) + compared("PPO", found["ppo-eval"])
    record.write_scores("learning_hh", rows)


if __name__ == "__main__":
    main()
