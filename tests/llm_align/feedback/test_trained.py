from __future__ import annotations

import pytest
import torch
from torch import nn

from llm_align.data.loader import Config
from llm_align.data.tokenizer import byte_tokenizer
from llm_align.feedback.scorer import Scorer
from llm_align.feedback.trained import Ensemble, RewardModel, Weighted
from llm_align.models.causal_lm import Small, small_causal_lm

PROMPTS, COMPLETIONS = ["a", "bc", "d"], ["xyz", "x\nyy", "zz"]


class Fixed:
    """Scores given in advance."""

    def __init__(self, *scores):
        self.scores = torch.tensor(scores)

    def score(self, prompts, completions):
        return self.scores


def reward_model(process=None):
    torch.manual_seed(0)
    trunk = small_causal_lm(Small(vocab_size=258, hidden_size=16, num_layers=1, num_heads=2))
    scorer = Scorer(trunk, "causal")
    nn.init.normal_(scorer.output.weight)
    scorer.normalizer.update(torch.randn(9, 16))
    return RewardModel(scorer, byte_tokenizer(), Config(template="plain", batch_size=2), process)


@pytest.mark.parametrize("process", [None, "min"])
def test_a_saved_model_scores_the_same_and_row_by_row(tmp_path, process):
    model = reward_model(process)
    scores = model(PROMPTS, COMPLETIONS, difficulty=[1, 2, 3])
    model.save(tmp_path)
    assert RewardModel.load(tmp_path)(PROMPTS, COMPLETIONS) == pytest.approx(scores, abs=1e-6)
    apart = [model([p], [c])[0] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert scores == pytest.approx(apart, abs=1e-5)


@pytest.mark.parametrize("process", [None, "min"])
def test_an_answer_of_nothing_has_a_score(process):
    model = reward_model(process)
    empty, other = model(["a", "a"], ["", "x"])
    assert empty != other
    assert [empty] == pytest.approx(model(["a"], [""]), abs=1e-6)


def test_a_folder_without_a_reward_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no reward_model\.json"):
        RewardModel.load(tmp_path)


def test_an_ensemble_subtracts_its_disagreement():
    ensemble = Ensemble([Fixed(1.0, 2.0), Fixed(1.0, 4.0)], caution=0.5)
    assert ensemble(["", ""], ["", ""]) == pytest.approx([1.0, 3.0 - 0.5 * 2**0.5])
    with pytest.raises(ValueError, match="models=1: must be two or more"):
        Ensemble([Fixed(1.0)])


def test_weights_apply_on_calibrated_scales():
    models = {"helpful": Fixed(0.0, 10.0), "harmless": Fixed(0.1, -0.1)}
    weighted = Weighted(models, {"helpful": 1.0, "harmless": 3.0})
    assert weighted(["", ""], ["", ""]) == pytest.approx([0.3, 9.7])
    weighted.calibrate(["", ""], ["", ""])
    half = 0.5**0.5
    assert weighted(["", ""], ["", ""]) == pytest.approx([-half + 3 * half, half - 3 * half])
    with pytest.raises(ValueError, match="'harmles' must have both .*did you mean 'harmless'"):
        Weighted(models, {"helpful": 1.0, "harmles": 3.0, "harmless": 1.0})
    with pytest.raises(ValueError, match="scores all answers alike"):
        Weighted({"a": Fixed(1.0, 1.0)}, {"a": 1.0}).calibrate(["", ""], ["", ""])
