"""How well does a reward model on the packaged MiniLM encoder know HH's harmless pairs? Five folds.

    python -m benchmarks.learning_reward_minilm --data harmless-base.jsonl.gz --runs runs/reward-minilm

Trains `+experiment=hh_reward_minilm` through the script, once a fold, so that every pair is held out once. A
logistic regression on the sentence embeddings of the two answers (its penalty chosen on the training side)
and "the longer answer wins" judge the same pairs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV

from benchmarks import record
from benchmarks.folds import train
from llm_align.data import examples as kinds
from llm_align.data import loader
from llm_align.data.tokens import Encoded
from llm_align.eval.accuracy import wilson
from llm_align.feedback.scorer import encoder_features, load_encoder

FOLDS = 5
TARGET = 0.63
CFG = {"max_length": 256, "empty": "drop", "too_long": "keep_end", "held_out": 1 / FOLDS}


@dataclass
class Judge:
    """How many of each fold's pairs a judge got right."""

    name: str
    settings: dict[str, Any]
    accuracies: list[float] = field(default_factory=list)
    pairs: list[int] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Accuracy over all pairs with Wilson's interval; each is a fold's."""
        total = sum(self.pairs)
        rate = sum(a * n for a, n in zip(self.accuracies, self.pairs, strict=True)) / total
        low, high = wilson(rate, total)
        reached = "reached" if rate >= TARGET else "not reached"
        return {
            "algorithm": self.name,
            "library": "ours" if self.name == "reward model" else "baseline",
            "scores": [round(a, 4) for a in self.accuracies],
            "mean": rate,
            "low": low,
            "high": high,
            "verdict": f"asked >= {TARGET:g}, {reached}" if self.name == "reward model" else "",
            "settings": {"pairs": total, **self.settings},
        }


@torch.no_grad()
def embeddings(encoded: list[Encoded]) -> np.ndarray:
    """Sentence embedding of the better answer minus that of the worse one, `[P, H]`."""
    trunk, _ = load_encoder("minilm")
    trunk.eval()
    differences = []
    for start in range(0, len(encoded), 32):
        rows = list(range(start, min(start + 32, len(encoded))))
        responses = loader.make_batch(encoded, rows).responses
        values = torch.nn.functional.normalize(encoder_features(trunk, responses), dim=-1)
        differences.append(values[0::2] - values[1::2])
    return torch.cat(differences).numpy()


def probe(encoded: list[Encoded]) -> Judge:
    """Logistic regression without intercept on differences, every pair in both orders."""
    judge = Judge("linear probe", {"features": "sentence embedding of each answer"})
    start = [load_encoder("minilm")[1].cls_token_id]
    alone = [replace(item, prompt=start) for item in encoded]
    table = {id(item.example): row for item, row in zip(alone, embeddings(alone), strict=True)}
    for fold in range(FOLDS):
        train_side, held_out = (
            np.stack([table[id(item.example)] for item in side])
            for side in loader.split(encoded, 1 / FOLDS, fold)
        )
        x, y = np.concatenate([train_side, -train_side]), np.repeat([1, 0], len(train_side))
        folds = np.tile(np.arange(len(train_side)) % 5, 2)  # both orders of a pair on one side
        cv = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(5)]
        model = LogisticRegressionCV(Cs=8, cv=cv, fit_intercept=False, max_iter=500).fit(x, y)
        judge.accuracies.append(float((held_out @ model.coef_[0] > 0).mean()))
        judge.pairs.append(len(held_out))
    return judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/reward-minilm"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = Judge("reward model", {"recipe": "+experiment=hh_reward_minilm", "seed": 0})
    longer = Judge("longer answer wins", {})
    reports = [train("hh_reward_minilm", args.data, args.runs, fold, FOLDS) for fold in range(FOLDS)]
    for report in reports:
        for judge, key in ((model, "accuracy"), (longer, "longer_wins")):
            judge.accuracies.append(report[key])
            judge.pairs.append(report["num_pairs"])
    mean = {key: float(np.mean([r[key] for r in reports])) for key in ("error", "length_correlation")}
    model.settings |= {name: round(value, 3) for name, value in mean.items()}
    for group in reports[0]["by_length"]:
        parts = [r["by_length"][group] for r in reports]
        count = sum(p["num_pairs"] for p in parts)
        right = sum(p["accuracy"] * p["num_pairs"] for p in parts)
        model.settings[group] = f"{right / count:.3f} of {count}"
    cfg = loader.Config(source=args.data, **CFG)
    encoded = loader.tokenize(cfg, load_encoder("minilm")[1], loader.read(cfg, kinds.preferences))
    record.write_scores("learning_reward_minilm", [model.row(), probe(encoded).row(), longer.row()])


if __name__ == "__main__":
    main()
