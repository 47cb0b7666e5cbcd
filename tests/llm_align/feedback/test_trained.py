from __future__ import annotations

import pytest
import torch
from torch import nn

from llm_align.data.loader import Config
from llm_align.data.tokenizer import byte_tokenizer
from llm_align.feedback import rewards, trained
from llm_align.feedback.logged import Logged
from llm_align.feedback.rewards import Reward, Rewards, Scale
from llm_align.feedback.scorer import Scorer
from llm_align.feedback.trained import Ensemble, RewardModel
from llm_align.models.causal_lm import Small, small_causal_lm

PROMPTS, COMPLETIONS = ["a", "bc", "d"], ["xyz", "x\nyy", "zz"]


class Fixed:
    """Scores given in advance."""

    def __init__(self, *scores):
        self.scores = torch.tensor(scores)

    def score(self, prompts, completions):
        return self.scores


RAW = Ensemble([Fixed(5.0, 6.0, 7.0)] * 2)


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


@pytest.mark.parametrize("process", [None, "min", "last"])
def test_a_chat_is_scored_as_its_rendered_text(process):
    model, said = reward_model(process), "one\ntwo"
    prompt, rendered = [{"role": "user", "content": "Count."}], "\n\nHuman: Count.\n\nAssistant:"
    answer = [{"role": "assistant", "content": said}]
    space = "" if process else " "  # HH's turns begin with one, steps follow the prompt at once
    assert model([prompt], [answer]) == pytest.approx(model([rendered], [space + said]), abs=1e-6)
    other = [{"role": "assistant", "content": "one\nsix"}]
    assert model([prompt], [answer]) != model([prompt], [other])


def test_steps_are_the_assistants_own():
    model = reward_model("mean")
    prompt, answer = [{"role": "user", "content": "Count."}], {"role": "assistant", "content": "one\ntwo"}
    with_tool = [answer, {"role": "tool", "content": "9"}, {"role": "assistant", "content": "three"}]
    assert model([prompt], [with_tool]) == model([prompt], ["one\ntwo\nthree"])


def test_a_folder_without_a_reward_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no reward_model\.json"):
        RewardModel.load(tmp_path)


def test_an_ensemble_subtracts_its_disagreement_and_logs_it():
    ensemble, said = Ensemble([Fixed(1.0, 2.0), Fixed(1.0, 4.0)], caution=0.5, name="judges"), Logged()
    told = {"log_metric": said.log_metric, "log_extra": said.log_extra}
    assert ensemble(["", ""], ["", ""], **told) == pytest.approx([1.0, 3.0 - 0.5 * 2**0.5])
    assert said.metrics == {"judges_spread": [pytest.approx(0.5**0.5)]}
    assert said.columns == {"judges_spread": pytest.approx([0.0, 2**0.5])}
    with pytest.raises(ValueError, match="models=1: must be two or more"):
        Ensemble([Fixed(1.0)])


def test_a_folder_of_reward_models_is_an_ensemble(tmp_path):
    first, second = reward_model(), reward_model()
    torch.nn.init.normal_(second.scorer.output.weight)
    for number, model in enumerate((first, second)):
        model.save(tmp_path / str(number))
    scores = torch.tensor([model(PROMPTS, COMPLETIONS) for model in (first, second)])
    expected = scores.mean(0) - 2 * scores.std(0)
    assert trained.load(tmp_path, caution=2.0)(PROMPTS, COMPLETIONS) == pytest.approx(
        expected.tolist(), abs=1e-5
    )
    assert trained.load(tmp_path / "1")(PROMPTS, COMPLETIONS) == pytest.approx(scores[1].tolist(), abs=1e-6)
    word = str(tmp_path)
    assert rewards.load(rewards.Config(functions=(word,), caution=2.0)).rewards[0].function.caution == 2.0
    with pytest.raises(ValueError, match="rewards.caution=2.0: must be 0 without an ensemble"):
        rewards.load(rewards.Config(functions=(str(tmp_path / "1"),), caution=2.0))


def test_weights_apply_on_calibrated_scales():
    def words(completions):
        return [float(len(text.split())) for text in completions]

    scores = {"wide": Fixed(0.0, 10.0, 20.0), "narrow": Fixed(0.1, -0.1, 0.0)}
    named = [Reward(name=n, function=Ensemble([score] * 2, name=n)) for n, score in scores.items()]
    both = Rewards(
        [*named, Reward(name="words", function=words), Reward(name="seen", function=RAW, weight=0)]
    )
    asked = PROMPTS, COMPLETIONS, [[0]] * 3
    before = both(*asked)
    assert before.total.tolist() == pytest.approx([1.1, 11.9, 21.0])
    scales = both.calibrate(before.parts)
    assert scales == {"wide": Scale(mean=10.0, std=10.0), "narrow": Scale(mean=0.0, std=pytest.approx(0.1))}
    assert both(*asked).total.tolist() == pytest.approx([1.0, 1.0, 2.0], abs=1e-5)
    assert both(*asked).parts["seen"].tolist() == [5.0, 6.0, 7.0]
    with pytest.raises(ValueError, match="it scores all answers alike"):
        both.calibrate({"wide": torch.ones(3), "narrow": torch.ones(3)})
    with pytest.raises(ValueError, match="must be a trained model among them"):
        Rewards([Reward(name="words", function=words)]).calibrate({"words": torch.ones(3)})
