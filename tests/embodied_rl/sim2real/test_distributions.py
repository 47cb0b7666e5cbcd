"""Rules: what they draw, and what is refused."""

import math

import numpy as np
import pytest
from scipy import stats

from embodied_rl.sim2real.distributions import correlation_factor, rules
from envs.desk.parameters import table
from envs.desk.scene import shared_model

DESK = table(shared_model())


def one(spec: dict, name: str = "mass_red"):
    (rule,) = rules({name: spec}, DESK)
    return rule


def test_quantiles_by_hand():
    assert one({"uniform": [0.04, 0.12]}).quantile(0.0) == pytest.approx(0.08)
    assert one({"log_uniform": [0.5, 2.0], "as": "factor"}).quantile(0.0) == pytest.approx(0.08)
    assert one({"normal": [0.1, 0.01]}).quantile(1.5) == pytest.approx(0.115)
    coin = one({"choice": [0.1, 0.2]})
    assert (coin.quantile(-0.1), coin.quantile(0.1), coin.quantile(9.0)) == (0.1, 0.2, 0.2)
    assert one({"normal": [0.0, 0.4], "as": "offset"}, "gravity_z").quantile(0.0) == pytest.approx(-9.81)
    assert one({"uniform": [0.9, 1.1], "as": "factor"}, "gravity_z").numbers == pytest.approx(
        (-10.791, -8.829)
    )


@pytest.mark.parametrize(
    ("spec", "law"),
    [
        ({"uniform": [0.04, 0.12]}, stats.uniform(0.04, 0.08)),
        ({"log_uniform": [0.04, 0.4]}, stats.loguniform(0.04, 0.4)),
        ({"normal": [0.05, 0.04]}, stats.truncnorm(-0.75, 10.75, 0.05, 0.04)),  # cut at 0.02 and 0.48 kg
    ],
)
def test_draws_follow_the_law(spec, law):
    rule, rng = one(spec), np.random.default_rng(0)
    values = [rule.quantile(z) for z in rng.standard_normal(2000)]
    assert stats.kstest(values, law.cdf).pvalue > 0.01


def test_patterns_and_later_entries_win():
    all_masses = {"uniform": [0.5, 1.5], "as": "factor", "together": True}
    config = {"mass_*": all_masses, "mass_blue": {"choice": [0.3]}}
    found = {rule.name: rule for rule in rules(config, DESK)}
    assert set(found) == {"mass_red", "mass_blue", "mass_pink"}
    assert found["mass_blue"].numbers == (0.3,)
    assert found["mass_red"].group == found["mass_pink"].group == "mass_*"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"mass_rde": {"choice": [0.1]}}, "no parameter is called 'mass_rde'; did you mean 'mass_red'"),
        ({"weight_*": {"choice": [0.1]}}, "no parameter is called 'weight_"),
        ({"mass_red": {"unifrom": [0, 1]}}, "did you mean 'uniform'"),
        ({"mass_red": {}}, "mass_red={}: must be one distribution"),
        ({"mass_red": {"uniform": [0.1, 0.2], "normal": [0.1, 0.1]}}, "one distribution"),
        ({"mass_red": {"uniform": [0.12, 0.04]}}, "low < high"),
        ({"mass_red": {"uniform": [0.1, 0.1]}}, "low < high"),
        ({"mass_red": {"uniform": [0.1]}}, "two numbers"),
        ({"mass_red": {"choice": []}}, "at least one number"),
        ({"mass_red": {"uniform": "wide"}}, "mass_red.uniform='wide': must be a list"),
        ({"mass_red": {"uniform": ["wide", 1]}}, "list of numbers"),
        ({"mass_red": 0.3}, "mass_red=0.3: must be a mapping such as"),
        ({"mass_red": None}, "mass_red=None: must be a mapping"),
        ({"texture_desk": {"choice": 1}}, "texture_desk.choice=1: must be a list"),
        (
            {"mass_red": {"uniform": [0.1, 0.2], "correlation": "slow"}},
            "correlation='slow': must be a finite",
        ),
        ({"mass_red": {"uniform": [0.1, 0.2], "together": "no"}}, "together='no': must be true or false"),
        ({"latency": {"uniform": [0.5, 2], "as": "factor"}}, "the nominal value is 0"),
        ({"mass_red": {"uniform": [0.1, math.nan]}}, "finite"),
        ({"mass_red": {"uniform": [0.01, 0.2]}}, r"leaves what is physically possible, \[0.02, 0.48\] kg"),
        ({"mass_red": {"normal": [0.9, 0.2]}}, "physically possible"),
        ({"mass_red": {"normal": [0.1, -0.2]}}, "standard deviation >= 0"),
        ({"latency": {"log_uniform": [0.0, 0.1]}}, "positive"),
        ({"mass_red": {"uniform": [0.1, 0.2], "every": "episode", "correlation": 1}}, "every='episode'"),
        ({"mass_red": {"uniform": [0.1, 0.2], "correlation": -1}}, "at least 0 seconds"),
        ({"mass_red": {"uniform": [0.1, 0.2], "as": "times"}}, "as='times': must be one of value"),
    ],
)
def test_bad_rules_are_named(config, words):
    with pytest.raises(ValueError, match=words):
        rules(config, DESK)


def test_correlations():
    factor = correlation_factor(("a", "b"), {"a": {"b": 0.6}})
    np.testing.assert_allclose(factor @ factor.T, [[1, 0.6], [0.6, 1]])
    with pytest.raises(ValueError, match="did you mean 'b'"):
        correlation_factor(("ab", "b"), {"ab": {"bb": 0.6}})
    with pytest.raises(ValueError, match="no joint distribution"):
        correlation_factor(("a", "b", "c"), {"a": {"b": 0.9, "c": 0.9}, "b": {"c": -0.9}})
    with pytest.raises(ValueError, match="between -1 and 1"):
        correlation_factor(("a", "b"), {"a": {"b": 1.5}})
    with pytest.raises(ValueError, match=r"correlations.a=0.5: must be a mapping"):
        correlation_factor(("a", "b"), {"a": 0.5})
    with pytest.raises(ValueError, match=r"correlations.a.b='x': must be a finite number"):
        correlation_factor(("a", "b"), {"a": {"b": "x"}})
    with pytest.raises(ValueError, match="with itself everything"):
        correlation_factor(("a", "b"), {"a": {"a": 0.5}})
