"""What a run is doing besides raising its reward, and when to stop and let a person look.

Signals of reward hacking are clear afterwards and weak as early warnings, hence thresholds that a user
tunes, not a detector: a window's mean beyond one of them pauses the run with a checkpoint and the reason.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from llm_align.feedback.calibration import correlation
from llm_align.feedback.rewards import name_of
from llm_align.monitors.diversity import distinct, self_bleu
from llm_align.online.rollout import Samples
from rl_core.config import require
from rl_core.reductions import masked_mean
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """Thresholds on means over `window` steps; the defaults never pause."""

    gold: str = ""  # a held-out scorer, as in rewards.functions: watched, not learnt from
    window: int = 20
    min_reward: float = -math.inf
    max_kl: float = math.inf  # nats per response from the reference, where there is one
    max_length: float = math.inf  # tokens
    max_truncated: float = math.inf  # share of responses
    min_entropy: float = -math.inf  # nats per token
    min_distinct_2: float = -math.inf
    max_self_bleu: float = math.inf
    max_reward_length_correlation: float = math.inf
    max_proxy_gold_gap: float = math.inf  # standard deviations of the first rollout where both vary
    self_bleu_groups: int = 4  # groups of a rollout that self-BLEU looks at
    completions: int = 8  # of a logged step's responses, how many are written to completions.jsonl

    def __post_init__(self) -> None:
        """Check the window."""
        require(self.window >= 1, "monitor.window", self.window, "at least 1")
        for name in ("self_bleu_groups", "completions"):
            require(getattr(self, name) >= 0, f"monitor.{name}", getattr(self, name), ">= 0")
        watched = bool(self.gold) or math.isinf(self.max_proxy_gold_gap)
        require(watched, "monitor.max_proxy_gold_gap", self.max_proxy_gold_gap, ".inf without monitor.gold")
        compared = self.self_bleu_groups > 0 or math.isinf(self.max_self_bleu)
        require(compared, "monitor.max_self_bleu", self.max_self_bleu, ".inf with self_bleu_groups=0")

    def thresholds(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest acceptable mean of each watched metric."""
        return {
            "reward": (self.min_reward, math.inf),
            "kl": (-math.inf, self.max_kl),
            "length": (-math.inf, self.max_length),
            "truncated": (-math.inf, self.max_truncated),
            "entropy": (self.min_entropy, math.inf),
            "distinct_2": (self.min_distinct_2, math.inf),
            "self_bleu": (-math.inf, self.max_self_bleu),
            "reward_length_correlation": (-math.inf, self.max_reward_length_correlation),
            "proxy_gold_gap": (-math.inf, self.max_proxy_gold_gap),
        }


class Monitor:
    """Measures every rollout; `config.gold` is among the samples' rewards, with weight 0."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._recent: dict[str, deque[float]] = {}
        self._start: dict[str, float] = {}  # mean and deviation of proxy and gold where both first vary

    def check(self, *, group_size: int, has_reference: bool) -> None:
        """Raise ValueError for a threshold on what a run with such rollouts does not measure."""
        cfg = self.config
        known = has_reference or math.isinf(cfg.max_kl)
        require(known, "monitor.max_kl", cfg.max_kl, ".inf without a reference, which algo.kl.coef > 0 keeps")
        compared = group_size > 1 or math.isinf(cfg.max_self_bleu)
        require(compared, "monitor.max_self_bleu", cfg.max_self_bleu, ".inf with rollout.group_size=1")

    def watch(self, step: int, samples: Samples, run: Run, *, kl: Tensor | None = None) -> None:
        """Log the rollout's metrics and pause the run where a window's mean is beyond its threshold."""
        values = self.measure(samples)
        run.log(step, values)
        if kl is not None:
            values["kl"] = float(kl)
        reason = self.judge(values)
        if reason is not None:
            run.pause(reason)

    def measure(self, samples: Samples) -> dict[str, float]:
        """Reward, length, diversity and the rest of one rollout; what is undefined is left out."""
        judged = ~samples.reward.isnan()
        lengths = samples.responses.lengths.float()
        rows = samples.responses.response_lists()
        group = samples.group_size
        groups = [rows[i : i + group] for i in range(0, len(rows), group)]
        values = {
            "judged": float(judged.float().mean()),
            "length": float(lengths.mean()),
            "truncated": float((~samples.ended).float().mean()),
            # the sampler's own log-probabilities estimate its entropy without bias, at no cost
            "entropy": -float(masked_mean(samples.log_prob, samples.responses.loss_mask)),
            "distinct_1": distinct(rows, 1),
            "distinct_2": distinct(rows, 2),
            **samples.logged.means(),
        }
        if group > 1 and self.config.self_bleu_groups:
            looked_at = groups[: self.config.self_bleu_groups]
            values["self_bleu"] = sum(self_bleu(rows) for rows in looked_at) / len(looked_at)
        if judged.any():
            reward = samples.reward[judged]
            values["reward"] = float(reward.mean())
            values["reward_std"] = float(reward.std(correction=0))
            values["reward_length_correlation"] = correlation(reward, lengths[judged])
            values |= {
                f"reward_{n}": float(p.nanmean()) for n, p in samples.parts.items() if len(samples.parts) > 1
            }
            if self.config.gold:
                gold = samples.parts[name_of(self.config.gold)][judged]
                both = ~gold.isnan()
                values |= self._compare(reward[both], gold[both]) if both.any() else {}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def judge(self, values: dict[str, float]) -> str | None:
        """Take in one step's metrics; the reason to pause, if there is one."""
        for name, (low, high) in self.config.thresholds().items():
            if name not in values:
                continue
            recent = self._recent.setdefault(name, deque(maxlen=self.config.window))
            recent.append(values[name])
            mean = sum(recent) / len(recent)
            if len(recent) == self.config.window and not low <= mean <= high:
                bound = f"below {low:g}" if mean < low else f"above {high:g}"
                return f"{name} {mean:.4g} {bound} (mean of {len(recent)} steps)"
        return None

    def state_dict(self) -> dict[str, Any]:
        """The window and the first rollout's scores."""
        return {"recent": {name: list(values) for name, values in self._recent.items()}, "start": self._start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        window = self.config.window
        self._recent = {name: deque(values, maxlen=window) for name, values in state["recent"].items()}
        self._start = dict(state["start"])

    def _compare(self, proxy: Tensor, gold: Tensor) -> dict[str, float]:
        """How much more the proxy has gained than the held-out score, each in its own deviations."""
        values = {"gold": float(gold.mean()), "gold_correlation": correlation(proxy, gold)}
        named = {"proxy": proxy, "gold": gold}
        if not self._start and all(float(scores.std(correction=0)) > 1e-8 for scores in named.values()):
            for name, scores in named.items():
                self._start[f"{name}_mean"] = float(scores.mean())
                self._start[f"{name}_std"] = float(scores.std(correction=0))
        if not self._start:  # scores all alike have no scale yet
            return values
        gains = {
            name: (float(scores.mean()) - self._start[f"{name}_mean"]) / self._start[f"{name}_std"]
            for name, scores in named.items()
        }
        return values | {"proxy_gold_gap": gains["proxy"] - gains["gold"]}
