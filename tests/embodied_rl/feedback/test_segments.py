"""Segments and what a teacher says of them."""

import pytest
import torch

from embodied_rl.feedback import teachers
from embodied_rl.feedback.segments import Pool, Segments, cut, starts
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
