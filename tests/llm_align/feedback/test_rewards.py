"""Reward functions: TRL's calling convention, weights, and every way a function can go wrong."""

from __future__ import annotations

import asyncio
import math

import numpy
import pytest
import torch

from llm_align.data.batches import make_responses
from llm_align.feedback import rewards
from llm_align.feedback.logged import TrainerState
from llm_align.feedback.rewards import Reward, Rewards

PROMPTS, TEXTS, IDS = ["p"] * 3, ["a", "bb", "ccc"], [[1], [2, 2], [3, 3, 3]]


def judge(*functions, on_error="stop", weights=(1.0, 1.0), **options):
    named = [Reward(name=f.__name__, function=f, weight=w) for f, w in zip(functions, weights, strict=False)]
    return Rewards(named, on_error=on_error)(PROMPTS, TEXTS, IDS, **options)


def length(completions, **columns):
    return [float(len(text)) for text in completions]


def test_weighted_sum_skips_what_was_not_judged():
    def only_long(completion_ids):
        return [None if len(ids) < 2 else 1.0 for ids in completion_ids]

    def nobody(prompts):
        return [None] * len(prompts)

    scores = judge(length, only_long, weights=(1.0, 10.0))
    assert scores.total.tolist() == [1.0, 12.0, 13.0]
    assert scores.parts["only_long"].isnan().tolist() == [True, False, False]
    assert judge(nobody).total.isnan().all()


def test_a_weight_of_zero_watches():
    def silent(completions):
        return [None] * len(completions)

    scores = judge(silent, length, weights=(1.0, 0.0))
    assert scores.total.isnan().all()
    assert scores.parts["length"].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="not all 0"):
        judge(length, weights=(0.0,))


def test_a_reward_is_named_after_its_function_or_its_run():
    assert rewards.name_of("rules.py:polite") == "polite"
    assert rewards.name_of("runs/judge/model") == "judge"
    assert rewards.name_of("model") == "model"


def test_a_function_gets_the_columns_that_it_names():
    def named(completions, answer):
        return [float(text == truth) for text, truth in zip(completions, answer, strict=True)]

    columns = {"answer": ["a", "x", "ccc"], "other": [1, 2, 3]}
    assert judge(named, columns=columns).total.tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(
        ValueError, match="'named' needs the column 'answer': found answr, .*did you mean 'answr'"
    ):
        judge(named, columns={"answr": ["a", "x", "ccc"]}, on_error="skip")


def test_a_function_is_told_of_the_run_and_logs():
    def talks(completions, trainer_state, log_metric, log_extra):
        for text in completions:
            log_metric("length", len(text))
            log_extra("upper", [text.upper()])
        return [float(trainer_state.global_step + trainer_state.max_steps)] * len(completions)

    both = Rewards([Reward(name="talks", function=talks), Reward(name="length", function=length)])
    both.state = TrainerState(global_step=3, max_steps=4)
    scores = both(PROMPTS, TEXTS, IDS)
    assert scores.parts["talks"].tolist() == [7.0] * 3
    assert scores.logged.metrics == {"length": [1.0, 2.0, 3.0]}
    assert scores.logged.columns == {"upper": ["A", "BB", "CCC"]}
    assert scores.logged.means() == {"rewards/length": 2.0}


def test_columns_and_keywords_all_go_to_one_that_takes_all():
    class Everything:
        def __call__(self, prompts, **rest):
            self.names = set(rest)
            return [0.0] * len(prompts)

    function = Everything()
    Rewards([Reward(name="all", function=function)])(PROMPTS, TEXTS, IDS, columns={"answer": [1, 2, 3]})
    told = {"trainer_state", "log_metric", "log_extra", "responses"}
    assert function.names == {"completions", "completion_ids", "answer"} | told


def test_what_a_row_that_raises_logged_is_forgotten():
    def half(completions, log_metric, log_extra):
        log_metric("calls", 1)
        log_extra("text", completions)
        return [1.0 / (len(text) - 2) for text in completions]

    with pytest.warns(RuntimeWarning, match="row 1"):
        logged = judge(half, on_error="skip").logged
    assert logged.metrics == {"calls": [1.0, 1.0]}
    assert logged.columns == {"text": ["a", None, "ccc"]}


@pytest.mark.parametrize(
    ("column", "values", "metric", "message"),
    [
        ("x", [1], 0.0, r"log_extra\('x'\) got 1 values for 3 completions"),
        ("reward", [1, 2, 3], 0.0, r"log_extra\('reward'\): there is such a column already"),
        ("x", [1, 2, 3], math.nan, r"log_metric\('m', nan\): the value must be a finite number"),
    ],
)
def test_what_cannot_be_logged_is_named(column, values, metric, message):
    def talks(completions, log_metric, log_extra):
        log_extra(column, values)
        log_metric("m", metric)
        return [1.0] * len(completions)

    with pytest.raises(ValueError, match=message):
        judge(talks)


def test_an_object_per_environment_is_refused():
    def asks(completions, environments):
        return [1.0] * len(completions)

    with pytest.raises(ValueError, match="'asks' asks for 'environments': here one function answers"):
        judge(asks, on_error="skip")


def test_a_function_may_be_async():
    async def waits(completions):
        await asyncio.sleep(0)
        return [float(len(text)) for text in completions]

    assert judge(waits).total.tolist() == [1.0, 2.0, 3.0]


def test_a_model_scores_token_ids():
    responses = make_responses([[5]] * 3, IDS)
    function = rewards.from_model(lambda batch: batch.lengths.float())
    scores = Rewards([Reward(name="model", function=function)])(PROMPTS, TEXTS, IDS, responses=responses)
    assert scores.total.tolist() == [1.0, 2.0, 3.0]


def raises_on_bb(completions):
    return [1.0 / (len(text) - 2) for text in completions]


def nan_for_ccc(completions):
    return [math.nan if text == "ccc" else 1.0 for text in completions]


def words_for_a(completions):
    return ["good" if text == TEXTS[0] else 1.0 for text in completions]


def one_short(completions):
    return [1.0] * (len(completions) - 1)


def number_in_words(completions):
    return ["1.5", 1.0, 1.0]


def one_text(completions):
    return "101"


def forgotten(completions):
    return None


def one_number(completions):
    return torch.tensor(1.0)


def table(completions):
    return [torch.ones(2), *[1.0] * (len(completions) - 1)]


@pytest.mark.parametrize("kind", [torch.tensor, numpy.array, tuple, lambda values: (x for x in values)])
def test_rewards_may_be_tensors_and_arrays(kind):
    def counted(completions):
        return kind([float(len(text)) for text in completions])

    assert judge(counted).total.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("function", "message", "left"),
    [
        (raises_on_bb, "'raises_on_bb' raised ZeroDivisionError.* on row 1", [False, True, False]),
        (nan_for_ccc, "'nan_for_ccc' returned nan for row 2", [False, False, True]),
        (words_for_a, "'words_for_a' returned 'good' for row 0", [True, False, False]),
        (one_short, "'one_short' returned 2 rewards for 3 completions", [True, True, True]),
        (number_in_words, "'number_in_words' returned '1.5' for row 0", [True, False, False]),
        (one_text, "'one_text' returned str for 3 completions: must be a list", [True, True, True]),
        (forgotten, "'forgotten' returned NoneType for 3 completions", [True, True, True]),
        (one_number, "'one_number' returned Tensor for 3 completions", [True, True, True]),
        (table, "'table' returned tensor.* for row 0: must be a finite number", [True, False, False]),
    ],
)
def test_a_fault_is_named_and_stops_or_is_skipped(function, message, left):
    with pytest.raises(ValueError, match=message):
        judge(function)
    with pytest.warns(RuntimeWarning, match=message):
        scores = judge(function, on_error="skip")
    assert scores.total.isnan().tolist() == left


def test_a_fault_of_one_function_leaves_the_others():
    with pytest.warns(RuntimeWarning):
        assert judge(length, raises_on_bb, on_error="skip").total.tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("text", "answer", "reward"),
    [
        ("so it is\n#### 18", "16 - 3 = 13\n#### 18", 1.0),
        ("#### $1,200.50", "1200.5", 1.0),
        ("#### 17", 18, 0.0),
        ("eighteen", "#### 18", 0.0),
        ("#### 3", "no number", None),
    ],
)
def test_gsm8k_by_hand(text, answer, reward):
    assert rewards.gsm8k([text], [answer]) == [reward]
    assert rewards.gsm8k([[{"role": "assistant", "content": text}]], [answer]) == [reward]


def test_overlong_penalty_by_hand():
    lengths = torch.tensor([5, 6, 8, 10])
    penalty = rewards.overlong_penalty(lengths, limit=10, buffer=4)
    assert penalty.tolist() == [0.0, 0.0, -0.5, -1.0]


def test_load_reads_functions_from_files(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def short(completions):\n    return [-float(len(c)) for c in completions]\n")
    loaded = rewards.load(rewards.Config(functions=(f"{file}:short", "gsm8k"), weights=(2.0, 1.0)))
    assert [reward.name for reward in loaded.rewards] == ["short", "gsm8k"]
    columns = {"answer": ["1", "2", "3"]}
    assert loaded(PROMPTS, TEXTS, IDS, columns=columns).total.tolist() == [-2.0, -4.0, -6.0]


def test_a_file_may_define_dataclasses(tmp_path):
    file = tmp_path / "mine.py"
    lines = ["from __future__ import annotations", "from dataclasses import dataclass, KW_ONLY", "@dataclass"]
    lines += ["class Scale:", "    by: float = 2.0", "def one(completions):"]
    file.write_text("\n".join([*lines, "    return [Scale().by] * len(completions)"]))
    assert rewards.load(rewards.Config(functions=(f"{file}:one",)))(PROMPTS, TEXTS, IDS).total.sum() == 6.0


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (("gsm9k",), "did you mean 'gsm8k'"),
        (("nowhere.py:f",), "existing file"),
        ((f"{__file__}:nothing",), "has no function 'nothing'"),
    ],
)
def test_an_unknown_function_gets_a_sentence(functions, message):
    with pytest.raises(ValueError, match=message):
        rewards.load(rewards.Config(functions=functions))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="rewards.weights"):
        rewards.Config(functions=("gsm8k",), weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="did you mean 'skip'"):
        judge(length, on_error="skipp")
    with pytest.raises(ValueError, match="different names"):
        judge(length, length)
    with pytest.raises(ValueError, match="different names"):  # what is optimised is no held-out scorer
        rewards.load(rewards.Config(functions=("gsm8k",)), watched="gsm8k")
