import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_core import schedules
from tests.reference import schedules as twin


def test_by_hand():
    assert [schedules.linear(s, 1.0, 0.2, 4) for s in (0, 1, 4, 9)] == pytest.approx([1.0, 0.8, 0.2, 0.2])
    halfway = 0.2 + 0.4 * (1 + math.cos(math.pi / 4))
    assert [schedules.cosine(s, 1.0, 0.2, 4) for s in (0, 1, 2, 4, 9)] == pytest.approx(
        [1.0, halfway, 0.6, 0.2, 0.2]
    )
    assert [schedules.warmup(s, 4) for s in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert schedules.warmup(0, 0) == 1.0


@given(step=st.integers(0, 1000), start=st.floats(-5, 5), end=st.floats(-5, 5), duration=st.integers(1, 500))
def test_equals_the_twin(step, start, end, duration):
    for name in ("linear", "cosine"):
        value = getattr(schedules, name)(step, start, end, duration)
        assert value == pytest.approx(getattr(twin, name)(step, start, end, duration), abs=1e-9)
        assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9
    assert schedules.warmup(step, duration) == pytest.approx(twin.linear(step, 0.0, 1.0, duration))


def test_no_duration_is_an_error():
    with pytest.raises(ValueError, match="duration=0: must be > 0"):
        schedules.linear(1, 0.0, 1.0, 0)


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)])
def test_learning_rate_follows_and_survives_a_resume(lr):
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    first, second = (torch.optim.Adam([w], lr=lr.clone() if torch.is_tensor(lr) else lr) for w in weights)
    schedules.set_lr(first, 0.5)
    assert float(first.param_groups[0]["lr"]) == pytest.approx(0.05)
    second.load_state_dict(first.state_dict())
    schedules.set_lr(second, 0.25)  # of 0.1, not of the 0.05 it was saved at
    assert float(second.param_groups[0]["lr"]) == pytest.approx(0.025)


def test_constant_is_constant():
    assert [schedules.constant(step, 0.3) for step in (0, 7)] == [0.3, 0.3]
