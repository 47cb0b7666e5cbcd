import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_core import advantages as adv
from tests.reference import advantages as twin


def steps(seed: int, num_rows: int = 3, num_steps: int = 9):
    """Random steps as NumPy arrays; about a third of them end, half of those terminate."""
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, num_rows, num_steps))
    ended = rng.random((num_rows, num_steps)) < 0.3
    terminated = ended & (rng.random(ended.shape) < 0.5)
    mask = rng.random(ended.shape) < 0.7
    return rewards, values, next_values, terminated, ended, mask


def tensors(*arrays):
    return [torch.from_numpy(a) for a in arrays]


def close(tensor, array):
    np.testing.assert_allclose(tensor.numpy(), array, atol=1e-5)


def test_gae_by_hand():
    # truncated at step 1 (bootstraps with 10), terminated at step 2 (ignores the 99)
    rewards, values = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, 1.0, 2.0])
    next_values = torch.tensor([1.0, 10.0, 99.0])
    terminated, ended = torch.tensor([False, False, True]), torch.tensor([False, True, True])
    advantages, returns = adv.gae(rewards, values, next_values, terminated, ended, gamma=0.5, lam=0.5)
    assert torch.allclose(advantages, torch.tensor([1.0 + 0.25 * 5.0, 5.0, -1.0]))
    assert torch.allclose(returns, advantages + values)


@given(
    seed=st.integers(0, 10_000), gamma=st.sampled_from([0.0, 0.9, 1.0]), lam=st.sampled_from([0.0, 0.95, 1.0])
)
@settings(max_examples=40, deadline=None)
def test_returns_equal_the_loops(seed, gamma, lam):
    rewards, values, next_values, terminated, ended, mask = arrays = steps(seed, num_steps=1 + seed % 12)
    r, v, n, t, e, m = tensors(*arrays)
    for ours, theirs in zip(
        adv.gae(r, v, n, t, e, gamma=gamma, lam=lam, mask=m),
        twin.gae(rewards, values, next_values, terminated, ended, gamma, lam, mask),
        strict=True,
    ):
        close(ours, theirs)
    close(
        adv.lambda_returns(r, n, t, e, gamma=gamma, lam=lam),
        twin.lambda_returns(rewards, next_values, terminated, ended, gamma, lam),
    )
    close(adv.discounted_returns(r, e, gamma=gamma), twin.discounted_returns(rewards, ended, gamma))
    rho = np.random.default_rng(seed).uniform(0, 1, rewards.shape)
    c = lam * rho
    for ours, theirs in zip(
        adv.v_trace(r, v, n, t, e, gamma=gamma, rho=torch.from_numpy(rho), c=torch.from_numpy(c)),
        twin.v_trace(rewards, values, next_values, terminated, ended, gamma, rho, c),
        strict=True,
    ):
        close(ours, theirs)


def test_special_cases_of_lambda():
    _, v, _, t, e, _ = tensors(*steps(1))
    r = torch.ones_like(v)
    n = torch.cat([v[:, 1:], v[:, :1]], -1)
    one_step = r + 0.9 * n * ~t
    close(adv.gae(r, v, n, t, e, gamma=0.9, lam=0.0)[1], one_step.numpy())
    close(adv.lambda_returns(r, n, t, e, gamma=0.9, lam=0.0), one_step.numpy())
    # with next values that are the values of the next step, GAE's returns are the lambda returns
    close(adv.gae(r, v, n, t, e, gamma=0.9, lam=0.7)[1], adv.lambda_returns(r, n, t, e, gamma=0.9, lam=0.7))
    # without a bootstrap anywhere lam=1 is the discounted return
    close(adv.lambda_returns(r, 0 * n, t, e, gamma=0.9, lam=1.0), adv.discounted_returns(r, e, gamma=0.9))
    on_policy = adv.v_trace(r, v, n, t, e, gamma=0.9, rho=torch.ones_like(r), c=torch.ones_like(r))[1]
    close(on_policy, adv.lambda_returns(r, n, t, e, gamma=0.9, lam=1.0))


def test_masked_steps_cost_nothing():
    """Padding and tool tokens between actions: the same numbers as without them, whatever they hold."""
    r, v, n, t, e, _ = tensors(*steps(2, num_rows=1, num_steps=5))
    e[:], t[:] = False, False
    expected, _ = adv.gae(r, v, n, t, e, gamma=0.9, lam=0.8)
    where = torch.tensor([0, 1, 4, 5, 7])
    wide = torch.full((3, 1, 8), torch.nan, dtype=torch.float64)
    wide[:, :, where] = torch.stack([r, v, n])
    mask = torch.zeros(1, 8, dtype=torch.bool)
    mask[:, where] = True
    nothing = torch.zeros_like(mask)
    advantages, returns = adv.gae(*wide, nothing, nothing, gamma=0.9, lam=0.8, mask=mask)
    assert torch.allclose(advantages[:, where], expected)
    assert (advantages[~mask] == 0).all()
    assert (returns[~mask] == 0).all()


def test_truncation_is_not_termination():
    """A value of 1 / (1 - gamma) explains reward 1 forever: the advantage is 0 at a time limit, not at a
    failure.
    """
    ones, value = torch.ones(1, 20), torch.full((1, 20), 10.0)
    ended = torch.zeros(1, 20, dtype=torch.bool)
    ended[:, 9] = True
    truncated, _ = adv.gae(ones, value, value, torch.zeros_like(ended), ended, gamma=0.9, lam=0.95)
    terminated, _ = adv.gae(ones, value, value, ended, ended, gamma=0.9, lam=0.95)
    assert truncated.abs().max() < 1e-5
    assert terminated[0, 9] == pytest.approx(-9.0)


@pytest.mark.parametrize(
    ("ours", "baseline", "scale"),
    [
        (adv.group_center, "mean", "none"),
        (adv.group_zscore, "mean", "group"),
        (adv.group_center_batch_scale, "mean", "batch"),
        (adv.leave_one_out, "others", "none"),
    ],
)
def test_group_relative_equals_the_loop(ours, baseline, scale):
    rewards = np.random.default_rng(0).normal(size=(5, 4))
    rewards[0, 1] = rewards[1, :3] = rewards[2, :] = np.nan
    close(ours(torch.from_numpy(rewards)), twin.group_relative(rewards, baseline, scale))


def test_sum_of_zscores_equals_the_loop_and_by_hand():
    rewards = np.random.default_rng(0).normal(size=(3, 5, 4))
    rewards[0, 1, :3] = rewards[:, 2, 1] = rewards[1, 3] = np.nan
    weights = np.array([1.0, 0.5, -2.0])
    ours = adv.sum_of_zscores(torch.from_numpy(rewards), torch.from_numpy(weights))
    close(ours, twin.sum_of_zscores(rewards, weights))
    assert ours.isnan().sum() == 1
    scales = torch.tensor(
        [[[0.0, 1000.0]], [[3.0, 1.0]]]
    )  # each z-score is (-1, 1) / sqrt(2), or its opposite
    by_hand = torch.tensor([[1.0, -1.0]]) / 2**0.5
    assert torch.allclose(adv.sum_of_zscores(scales, torch.tensor([1.0, 2.0])), by_hand, atol=2e-4)


def test_group_relative_by_hand():
    rewards = torch.tensor([[1.0, 2.0, torch.nan, 6.0]])
    assert torch.allclose(adv.group_center(rewards), torch.tensor([[-2.0, -1.0, 0.0, 3.0]]))
    assert torch.allclose(adv.leave_one_out(rewards), torch.tensor([[-3.0, -1.5, 0.0, 4.5]]))
    assert torch.allclose(adv.group_zscore(rewards), torch.tensor([[-2.0, -1.0, 0.0, 3.0]]) / (7**0.5 + 1e-4))
    assert (adv.group_zscore(torch.full((2, 3), 5.0)) == 0).all()
    assert (
        adv.group_center(torch.tensor([[1.0, torch.inf]])).isnan().any()
    )  # an infinite reward is not hidden
