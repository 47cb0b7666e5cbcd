"""Segments and what a teacher says of them."""

import numpy as np
import pytest
import torch

from embodied_rl.feedback import teachers
from embodied_rl.feedback.segments import Pool, Segments, cut, disjoint, starts
from embodied_rl.online.rollout import Steps


def numbered(ended: torch.Tensor) -> Steps:
    """A rollout whose observations count its steps, and whose rewards are ten times that."""
    count = torch.arange(ended.numel(), dtype=torch.float32).view(ended.shape)
    none = torch.zeros(0, 2, dtype=torch.int64)
    return Steps(
        obs=count[..., None], action=3.0 * torch.ones(*ended.shape, 1), reward=10 * count, terminated=ended,
        truncated=torch.zeros_like(ended), first=torch.zeros_like(ended), state=torch.zeros(len(ended), 0),
        next_obs=torch.zeros(len(ended), 1), cut=none, cut_obs=torch.zeros(0, 1),
    )  # fmt: skip


def test_no_segment_goes_on_into_the_next_episode():
    ended = torch.tensor([[False, False, True, False, False], [False, False, False, False, False]])
    assert starts(ended, 3).tolist() == [[0, 0], [1, 0], [1, 1], [1, 2]]
    assert starts(ended, 5).tolist() == [[1, 0]]
    assert len(starts(ended, 1)) == 10
    with pytest.raises(ValueError, match="algo.feedback.segment=6: must be at most rollout.horizon=5"):
        starts(ended, 6)


@pytest.mark.parametrize("count", [1, 7, 12, 100])
def test_disjoint_places_share_no_step_and_fill_the_rollout_if_need_be(count):
    options = {"num_envs": 3, "horizon": 14}
    places = disjoint(count, 3, **options, rng=np.random.default_rng(count))
    assert len(places) == min(count, 3 * 4)
    steps = {(env, start + t) for env, start in places.tolist() for t in range(3)}
    assert len(steps) == 3 * len(places)
    assert all(0 <= env < 3 and 0 <= t < 14 for env, t in steps)
    per_env = np.bincount(places[:, 0], minlength=3)
    assert per_env.max() - per_env.min() <= 1
    with pytest.raises(ValueError, match="algo.feedback.segment=15: must be at most rollout.horizon=14"):
        disjoint(count, 15, **options, rng=np.random.default_rng(0))


def test_disjoint_places_are_everywhere():
    rng = np.random.default_rng(0)
    found = {tuple(place) for _ in range(300) for place in disjoint(2, 3, num_envs=1, horizon=8, rng=rng)}
    assert found == {(0, start) for start in range(6)}


def test_a_segment_is_what_was_seen_done_and_paid():
    steps = numbered(torch.zeros(2, 5, dtype=torch.bool))
    segments = cut(steps, torch.tensor([[1, 2], [0, 0]]), 3, iteration=7)
    assert segments.obs[..., 0].tolist() == [[7, 8, 9], [0, 1, 2]]
    assert segments.returns().tolist() == [240, 30]
    assert segments.action.unique().tolist() == [1.0]  # as executed
    assert segments.names() == ["000007-001-0002", "000007-000-0000"]
    steps.obs.zero_()  # the collector writes its next rollout there
    assert segments.obs.sum() == 27


def made(rewards: list[list[float]]) -> Segments:
    reward = torch.tensor(rewards)
    count = len(reward)
    return Segments(
        obs=torch.zeros(*reward.shape, 2), action=torch.zeros(*reward.shape, 1), reward=reward,
        place=torch.stack([torch.arange(count)] * 3, dim=1),
    )  # fmt: skip


def test_the_pool_keeps_the_last_and_pairs_are_different():
    pool, rng = Pool(4), torch.Generator().manual_seed(0)
    assert len(pool.pairs(3, rng)) == 0
    pool.add(made([[1.0], [2.0], [3.0]]))
    pool.add(made([[4.0], [5.0]]))
    assert pool.segments.reward[:, 0].tolist() == [2, 3, 4, 5]
    pairs = pool.pairs(200, rng)
    assert len(pairs) == 6  # all that there are
    assert len(pairs.unique(dim=0)) == 6
    assert (pairs[:, 0] != pairs[:, 1]).all()
    other = Pool(4)
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other.segments.reward, pool.segments.reward)


def test_known_pairs_are_not_drawn_again():
    pool = Pool(9)
    pool.add(made([[1.0], [2.0], [3.0], [4.0]]))
    every = pool.pairs(6, torch.Generator().manual_seed(0))
    known = pool.segments[every[[0, 3]].flip(1)].place  # the other way round
    left = pool.pairs(6, torch.Generator().manual_seed(0), known)
    assert torch.equal(left, every[[1, 2, 4, 5]])
    assert torch.equal(pool.pairs(2, torch.Generator().manual_seed(0), known), every[[1, 2]])
    elsewhere = known + 100
    assert torch.equal(pool.pairs(3, torch.Generator().manual_seed(0), elsewhere), every[:3])
    nothing = pool.pairs(6, torch.Generator().manual_seed(0), pool.segments[every].place)
    assert nothing.shape == (0, 2)


PAIRS = made([[1.0, 2.0], [2.0, 2.0], [0.0, 3.0], [5.0, 0.0]])[torch.tensor([[0, 1], [1, 0], [0, 2], [3, 2]])]


def answers(pairs: Segments = PAIRS, **options) -> list[float]:
    return teachers.judge(pairs, teachers.Config(**options), torch.Generator().manual_seed(0)).tolist()


def test_a_scripted_teacher_prefers_the_larger_return():
    assert answers() == [0.0, 1.0, 0.5, 1.0]
    assert answers(equal=1.0) == [0.5, 0.5, 0.5, 1.0]
    assert answers(mistakes=1.0) == [1.0, 0.0, 0.5, 0.0]


def test_a_scripted_teacher_errs_as_often_as_told():
    many = PAIRS[torch.zeros(4000, dtype=torch.int64)]  # the first is worse by 1
    assert sum(answers(many, mistakes=0.2)) / 4000 == pytest.approx(0.2, abs=0.03)
    assert sum(answers(many, rationality=2.0)) / 4000 == pytest.approx(1 / (1 + 2.718281828**2), abs=0.02)


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not finite in a segment of .* \\[1, 1, 1\\]"):
        answers(made([[0.0], [float("nan")]])[torch.tensor([[1, 0]])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "scriptd"}, "algo.feedback.teacher.kind.*did you mean 'scripted'"),
        ({"mistakes": 1.5}, "algo.feedback.teacher.mistakes=1.5"),
        ({"rationality": 0.0}, "algo.feedback.teacher.rationality=0.0"),
        ({"equal": -1.0}, "algo.feedback.teacher.equal=-1.0"),
        ({"kind": "person", "mistakes": 0.1}, "scripted where"),
    ],
)
def test_a_teacher_that_cannot_be_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        teachers.Config(**options)
