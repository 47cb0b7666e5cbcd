from benchmarks.scores import verdict
from embodied_rl.eval.statistics import Interval


def test_verdict_needs_two_libraries_with_a_spread():
    near, far = Interval(value=2.0, low=1.0, high=3.0), Interval(value=9.0, low=8.0, high=10.0)
    single = Interval(value=2.0, low=None, high=None)
    measured = {("iql", "ours"): near, ("iql", "d3rlpy"): near, ("cql", "ours"): near, ("cql", "d3rlpy"): far}
    assert verdict("iql", measured) == "intervals overlap"
    assert verdict("cql", measured) == "intervals do not overlap"
    assert verdict("iql", {("iql", "ours"): near}) == ""
    assert verdict("iql", {("iql", "ours"): near, ("iql", "d3rlpy"): single}) == ""
