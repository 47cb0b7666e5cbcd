"""Monitor metrics by hand, and a threshold that pauses a run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from llm_align.data.batches import make_responses
from llm_align.feedback.calibration import correlation
from llm_align.monitors.diversity import distinct, self_bleu
from llm_align.monitors.monitor import Config, Monitor
from llm_align.online.rollout import Samples
from rl_core import run as runs


def samples(reward, rows=([1, 2, 3], [1, 2, 3], [4, 5], [6]), **parts):
    responses = make_responses([[9]] * 2, rows, [0, 0, 1, 1])
    return Samples(
        responses=responses,
        log_prob=-0.5 * responses.loss_mask,
        ended=torch.tensor([True, False, True, True]),
        reward=torch.tensor(reward),
        parts=parts,
        texts=[""] * 4,
        group_size=2,
    )


def test_metrics_by_hand():
    values = Monitor().measure(samples([1.0, 3.0, math.nan, 2.0]))
    assert values["reward"] == 2.0
    assert values["judged"] == 0.75
    assert values["length"] == 9 / 4
    assert values["truncated"] == 0.25
    assert values["entropy"] == pytest.approx(0.5)
    assert values["distinct_1"] == 6 / 9
    assert values["distinct_2"] == 3 / 5
    assert values["self_bleu"] == pytest.approx((1.0 + self_bleu([[4, 5], [6]])) / 2)
    assert values["reward_length_correlation"] == pytest.approx(0.0, abs=1e-9)


def test_nothing_judged_leaves_the_reward_out():
    values = Monitor().measure(samples([math.nan] * 4))
    assert "reward" not in values
    assert values["judged"] == 0


def test_diversity_by_hand():
    assert distinct([[1, 1, 1, 1]], 2) == 1 / 3
    assert distinct([[1]], 2) == 0.0
    assert self_bleu([[1, 2, 3, 4, 5]] * 3) == pytest.approx(1.0)
    assert self_bleu([[1, 2, 3, 4], [5, 6, 7, 8]]) == pytest.approx(math.exp(math.log(0.5**4 / 24) / 4))
    # one of two unigrams matches, no bigram does, no brevity penalty
    assert self_bleu([[1, 2], [1, 3]]) == pytest.approx(math.sqrt(0.5 * 0.5))
    assert self_bleu([[1, 2]]) == 0.0


def test_correlation_by_hand():
    x = torch.tensor([1.0, 2.0, 3.0])
    assert correlation(x, 2 * x) == pytest.approx(1.0)
    assert correlation(x, -x) == pytest.approx(-1.0)
    assert correlation(x, torch.ones(3)) == 0.0


def test_the_gap_opens_when_only_the_proxy_gains():
    gold = torch.tensor([0.0, 2.0, 0.0, 2.0])
    monitor = Monitor(Config(gold="runs/judge/model"))
    assert monitor.measure(samples([1.0, 3.0, 1.0, 3.0], judge=gold))["proxy_gold_gap"] == 0.0
    values = monitor.measure(samples([3.0, 5.0, 3.0, 5.0], judge=gold))  # two deviations more, gold as before
    assert values["proxy_gold_gap"] == pytest.approx(2.0)
    assert values["gold"] == 1.0
    assert values["gold_correlation"] == pytest.approx(1.0)


def test_the_gap_has_no_scale_before_both_scores_vary():
    nan, monitor = math.nan, Monitor(Config(gold="judge"))
    equal, gold = [0.0, 0.0, 0.0, 0.0], torch.tensor([0.0, 2.0, nan, nan])
    assert "proxy_gold_gap" not in monitor.measure(samples(equal, judge=gold))
    assert "proxy_gold_gap" not in monitor.measure(samples([1.0, 3.0, 1.0, 3.0], judge=gold * nan))
    assert monitor.measure(samples([1.0, 3.0, 1.0, 3.0], judge=gold))["proxy_gold_gap"] == 0.0
    assert monitor.measure(samples([2.0, 4.0, 9.0, 9.0], judge=gold))["proxy_gold_gap"] == pytest.approx(1.0)


def test_a_threshold_holds_for_the_mean_of_a_full_window():
    monitor = Monitor(Config(window=3, max_length=10.0, min_reward=0.0))
    assert monitor.judge({"length": 100.0}) is None
    assert monitor.judge({"length": 1.0}) is None
    assert monitor.judge({"length": 1.0}) == "length 34 above 10 (mean of 3 steps)"
    assert monitor.judge({"length": 1.0, "reward": -5.0}) is None
    again = Monitor(Config(window=3, max_length=10.0, min_reward=0.0))
    again.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    for other in (monitor, again):
        assert other.judge({"reward": -5.0}) is None
        assert other.judge({"reward": -5.0}) == "reward -5 below 0 (mean of 3 steps)"


def test_a_run_pauses_with_a_checkpoint_and_the_reason(tmp_path):
    @dataclass
    class Saved:
        run: runs.Config

    agent = torch.nn.Linear(1, 1)
    config = runs.Config(dir=str(tmp_path / "run"), steps=9, device="cpu", tensorboard=False)

    def train(monitor, resume=False):
        config.resume = resume
        done = []
        with runs.Run(config, config=Saved(run=config), may_change=("monitor",)) as run:
            for step in run.steps(agent, monitor=monitor):
                done.append(step)
                monitor.watch(step, samples([float(-step)] * 4), run)
        return done

    with pytest.raises(SystemExit) as exit_info:
        train(Monitor(Config(window=2, min_reward=-2.4)))
    assert exit_info.value.code == runs.PAUSED
    pause = json.loads((tmp_path / "run" / "pauses.jsonl").read_text())
    assert pause == {"step": 3, "reason": "reward -2.5 below -2.4 (mean of 2 steps)"}
    assert train(Monitor(Config(window=2, min_reward=-99.0)), resume=True) == [4, 5, 6, 7, 8, 9]


def test_a_diverging_kl_pauses():
    reasons = []
    run = SimpleNamespace(log=lambda step, values: None, pause=reasons.append)
    monitor = Monitor(Config(window=2, max_kl=10.0))
    for step, kl in enumerate([3.0, 5.0, 40.0], 1):
        monitor.watch(step, samples([1.0] * 4), run, kl=torch.tensor(kl))
    assert reasons == ["kl 22.5 above 10 (mean of 2 steps)"]


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="monitor.window=0"):
        Config(window=0)
    with pytest.raises(
        ValueError, match=r"monitor.max_proxy_gold_gap=1.0: must be .inf without monitor.gold"
    ):
        Config(max_proxy_gold_gap=1.0)
    with pytest.raises(ValueError, match="monitor.max_self_bleu=0.5"):
        Config(max_self_bleu=0.5, self_bleu_groups=0)


def test_thresholds_on_what_is_not_measured_are_refused():
    with pytest.raises(ValueError, match=r"monitor.max_kl=9.0: must be .inf without a reference"):
        Monitor(Config(max_kl=9.0)).check(group_size=2, has_reference=False)
    with pytest.raises(ValueError, match="with rollout.group_size=1"):
        Monitor(Config(max_self_bleu=0.5)).check(group_size=1, has_reference=True)
    Monitor(Config(max_kl=9.0, max_self_bleu=0.5)).check(group_size=2, has_reference=True)
