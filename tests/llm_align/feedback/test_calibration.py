from __future__ import annotations

import pytest
import torch

from llm_align.feedback.calibration import calibration


def test_four_pairs_by_hand():
    chosen, rejected = torch.tensor([1.0, 0.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    found = calibration(chosen, rejected, torch.tensor([1, 5, 9, 4]), torch.tensor([8, 3, 8, 4]))
    assert found.accuracy == pytest.approx(2.5 / 4)  # a tie counts half
    assert found.longer_wins == pytest.approx(2.5 / 4)
    assert found.by_length["chosen much shorter"] == pytest.approx(
        {"num_pairs": 1, "accuracy": 1.0, "confidence": 0.7310586}, rel=1e-5
    )
    assert sum(group["num_pairs"] for group in found.by_length.values()) == 4
    assert found.standard_error == pytest.approx((0.625 * 0.375 / 4) ** 0.5)


def test_scores_of_a_bradley_terry_world_are_calibrated():
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 20_000, generator=g) * 2
    wins = torch.rand(20_000, generator=g) < (first - second).sigmoid()
    chosen, rejected = torch.where(wins, first, second), torch.where(wins, second, first)
    length = torch.randint(1, 50, (2, 20_000), generator=g)
    good = calibration(chosen, rejected, *length)
    assert good.error < 0.02
    assert abs(good.length_correlation) < 0.02
    assert calibration(5 * chosen, 5 * rejected, *length).error > 0.1


def test_a_score_that_is_the_length_correlates_with_it():
    length = torch.tensor([3, 8]), torch.tensor([5, 1])
    assert calibration(length[0].float(), length[1].float(), *length).length_correlation == pytest.approx(1.0)
