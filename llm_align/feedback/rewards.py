"""Rewards of responses: any callables with TRL's signature, several with weights, faults named by row.

    def concise(prompts, completions, completion_ids, **columns) -> list[float | None]

One entry per completion; None means "not mine to judge". A function, which may be `async`, receives those of
the keywords that it names (all of them if it takes `**columns`): the three above, the columns of the prompts'
rows, TRL's `trainer_state`, `log_metric(name, value)` and `log_extra(column, values)` (`logged.py`), and
`responses`, the token batch, for models that score ids. Chat prompts come with completions as one-message
lists, as in TRL.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_align.data.batches import Responses
from llm_align.data.chat import text_of
from llm_align.data.gsm8k import final_answer
from llm_align.feedback import trained
from llm_align.feedback.logged import Logged, TrainerState, join
from rl_core.config import choice, did_you_mean, require

RewardFunction = Callable[..., Sequence[float | None]]
LEARNT = (trained.RewardModel, trained.Ensemble)
SERVED = ("responses", "trainer_state", "log_metric", "log_extra")  # beside the columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Reward:
    """One reward function, its name in the metrics and its weight in the sum; weight 0 only watches."""

    name: str
    function: RewardFunction
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Of B completions: `parts[name] [B]` each function's rewards, NaN where it does not judge.

    `total [B]` is their weighted sum, NaN where nothing with a weight judges; `logged` what was said besides.
    """

    total: Tensor
    parts: dict[str, Tensor]
    logged: Logged = field(default_factory=Logged)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What is taken from a score, and what it is divided by."""

    mean: float = 0.0
    std: float = 1.0


class Rewards:
    """Several reward functions called on the same completions.

    `on_error` says what happens when one raises, or returns NaN, infinity or the wrong number of rewards:
    "stop" raises ValueError with the function and the row; "skip" warns with them, and the function does not
    judge that row (all rows, where their number is wrong). The training loop sets `state`.
    """

    def __init__(self, rewards: Sequence[Reward], *, on_error: str = "stop") -> None:
        choice("rewards.on_error", on_error, ["stop", "skip"])
        require(len(rewards) > 0, "rewards", list(rewards), "at least one function")
        names = [reward.name for reward in rewards]
        require(len(set(names)) == len(names), "rewards", names, "functions of different names")
        weights = [reward.weight for reward in rewards]
        require(any(weights), "rewards.weights", weights, "not all 0")
        self.rewards = tuple(rewards)
        self._stop = on_error == "stop"
        self.state = TrainerState()
        self._scales: dict[str, Scale] = {}
        self._own_columns = {"step", "prompt", "completion", "reward", *(f"reward_{name}" for name in names)}

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        *,
        responses: Responses | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> Scores:
        """Score B completions; every sequence has B entries.

        Raises ValueError, whatever `on_error`, for a function that needs a column which is not there.
        """
        keywords = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        rows = {name: list(values) for name, values in {**(columns or {}), **keywords}.items()}
        for reward in self.rewards:
            _check_columns(reward, rows)
        parts, logged = {}, Logged()
        for reward in self.rewards:
            scores, said = self._judge(reward, rows, responses)
            scale = self._scales.get(reward.name, Scale())
            parts[reward.name] = (scores - scale.mean) / scale.std
            self._take(reward, said, logged, len(completions))
        stacked = torch.stack(
            [parts[reward.name] * reward.weight for reward in self.rewards if reward.weight]
        )
        total = torch.where(stacked.isnan().all(0), math.nan, stacked.nansum(0))
        return Scores(total=total, parts=parts, logged=logged)

    def calibrate(self, parts: Mapping[str, Tensor]) -> dict[str, Scale]:
        """Give every trained model that counts mean 0 and deviation 1 where it scored `parts[name]` so far.

        A learnt score has no scale of its own, so that without this its weight says little; functions keep
        theirs. Raises ValueError for a model that scores all answers alike, and where there is none.
        """
        learnt = [r.name for r in self.rewards if r.weight and isinstance(r.function, LEARNT)]
        require(bool(learnt), "rewards.functions", [*parts], "a trained model among them, to calibrate")
        for name in learnt:
            known = parts[name][~parts[name].isnan()]
            spread = known.std().item()
            require(spread > 0, f"spread of {name}", spread, "> 0: it scores all answers alike")
            self._scales[name] = Scale(mean=known.mean().item(), std=spread)
        return dict(self._scales)

    def _judge(
        self, reward: Reward, rows: dict[str, list[Any]], responses: Responses | None
    ) -> tuple[Tensor, Logged]:
        count, logged = len(rows["completions"]), Logged()
        try:
            answer = self._call(reward.function, rows, responses, logged)
            values = several(answer)
        except Exception as error:  # a user's function may raise anything
            return self._row_by_row(reward, rows, responses, error)
        if values is None or len(values) != count:
            found = type(answer).__name__ if values is None else f"{len(values)} rewards"
            self._fault(f"reward {reward.name!r} returned {found} for {count} completions: must be a list")
            return torch.full((count,), math.nan), logged
        numbers = [self._number(reward, row, value) for row, value in enumerate(values)]
        return torch.tensor(numbers), logged

    def _row_by_row(
        self, reward: Reward, rows: dict[str, list[Any]], responses: Responses | None, error: Exception
    ) -> tuple[Tensor, Logged]:
        """Find out on which rows the function raises by calling it on each alone."""
        values, faults, logs = [], 0, []
        for row in range(len(rows["completions"])):
            one = {name: [column[row]] for name, column in rows.items()}
            alone = None if responses is None else responses.select(torch.tensor([row]))
            logged = Logged()
            try:
                (value,) = self._call(reward.function, one, alone, logged)
            except Exception as fault:
                faults += 1
                prompt = str(rows["prompts"][row])[:60]
                self._fault(
                    f"reward {reward.name!r} raised {fault!r} on row {row} (prompt {prompt!r})", fault
                )
                value, logged = None, Logged()
            values.append(self._number(reward, row, value))
            logs.append(logged)
        if faults == 0:
            self._fault(f"reward {reward.name!r} raised {error!r} on the batch, but on no row alone", error)
        return torch.tensor(values), join(logs, [1] * len(logs))

    def _call(
        self,
        function: RewardFunction,
        rows: dict[str, list[Any]],
        responses: Responses | None,
        logged: Logged,
    ) -> Sequence[float | None]:
        keywords: dict[str, Any] = {
            **rows,
            "responses": responses,
            "trainer_state": self.state,
            "log_metric": logged.log_metric,
            "log_extra": logged.log_extra,
        }
        values: Any = function(**named(function, keywords))
        return asyncio.run(values) if inspect.iscoroutine(values) else values

    def _take(self, reward: Reward, said: Logged, logged: Logged, count: int) -> None:
        """Add to `logged` what one function said; a column of a wrong length, or another's, is a fault."""
        for name, values in said.metrics.items():
            logged.metrics.setdefault(name, []).extend(values)
        for column, entries in said.columns.items():
            where = f"reward {reward.name!r}: log_extra({column!r})"
            if len(entries) != count:
                self._fault(f"{where} got {len(entries)} values for {count} completions")
            elif column in logged.columns or column in self._own_columns:
                self._fault(f"{where}: there is such a column already; choose another name")
            else:
                logged.columns[column] = entries

    def _number(self, reward: Reward, row: int, value: float | None) -> float:
        if value is None:
            return math.nan
        try:
            number = math.nan if isinstance(value, str) else float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # also of tensors and arrays
            number = math.nan
        if math.isfinite(number):
            return number
        self._fault(
            f"reward {reward.name!r} returned {value!r} for row {row}: must be a finite number, or None"
        )
        return math.nan

    def _fault(self, message: str, cause: Exception | None = None) -> None:
        if self._stop:
            hint = "rewards.on_error=skip leaves such rows unjudged and goes on"
            raise ValueError(f"{message} ({hint})") from cause
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def named(function: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the keywords that a user's function names; all of them if it takes `**columns`."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return dict(keywords)
    return {p.name: keywords[p.name] for p in parameters if p.name in keywords}


def several(answer: Any) -> list[Any] | None:
    """What a user's function returned as a list; None for what has no order or is a single value."""
    unordered = isinstance(answer, str | bytes | Mapping | Set) or getattr(answer, "ndim", 1) == 0
    return None if unordered or not hasattr(answer, "__iter__") else list(answer)


def _check_columns(reward: Reward, rows: Mapping[str, Any]) -> None:
    for name, parameter in inspect.signature(reward.function).parameters.items():
        fixed = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if fixed and parameter.default is parameter.empty and name not in (*rows, *SERVED):
            if name == "environments":
                raise ValueError(
                    f"reward {reward.name!r} asks for 'environments': here one function answers the turns of "
                    "all completions (environment=file.py:function), there is no object for each"
                )
            hint = did_you_mean(name, (*rows, *SERVED)) or "; rewards.functions names the functions"
            raise ValueError(
                f"reward {reward.name!r} needs the column {name!r}: found {', '.join(rows)}{hint}"
            )


def from_model(scores: Callable[[Responses], Tensor]) -> RewardFunction:
    """A reward function from a model's `scores(responses) -> [B]`, e.g. `ValueModel.scores`."""

    @torch.no_grad()
    def model_reward(responses: Responses) -> list[float]:
        values: list[float] = scores(responses).float().tolist()
        return values

    return model_reward


def gsm8k(completions: Sequence[Any], answer: Sequence[Any]) -> list[float | None]:
    """1 where the number after the completion's last `####` is that of the column `answer`, else 0.

    `answer` may be a worked GSM8K answer or the number alone; a row without any number there is not judged.
    """
    rewards: list[float | None] = []
    for completion, truth in zip(completions, answer, strict=True):
        expected = final_answer(str(truth)) or final_answer(f"#### {truth}")
        rewards.append(None if expected is None else float(final_answer(text_of(completion)) == expected))
    return rewards


def overlong_penalty(lengths: Tensor, *, limit: int, buffer: int) -> Tensor:
    """DAPO's soft punishment `[B]` (arXiv:2503.14476, eq. 13): 0 to `limit - buffer` tokens, -1 at it."""
    return -((lengths - (limit - buffer)) / buffer).clamp(0.0, 1.0)


FUNCTIONS: dict[str, RewardFunction] = {"gsm8k": gsm8k}


@dataclass(kw_only=True, slots=True)
class Config:
    """Which functions judge: one of `FUNCTIONS`, `file.py:name`, the folder of a reward model or ensemble."""

    functions: tuple[str, ...] = ("gsm8k",)
    weights: tuple[float, ...] = ()  # empty: all 1
    on_error: str = "stop"
    caution: float = 0.0  # of ensembles: standard deviations over the members taken from their mean
    calibrate: int = 0  # prompts whose first answers give trained models mean 0, deviation 1; 0: as they are

    def __post_init__(self) -> None:
        """Check ranges, and that every function has a weight."""
        for name in ("caution", "calibrate"):
            require(getattr(self, name) >= 0, f"rewards.{name}", getattr(self, name), ">= 0")
        fits = len(self.weights) in (0, len(self.functions))
        require(fits, "rewards.weights", self.weights, f"{len(self.functions)} numbers, one per function")


def load(config: Config, device: torch.device | str = "cpu", *, watched: str = "") -> Rewards:
    """The rewards that a configuration names, and `watched` with weight 0; reward models on `device`."""
    weights = config.weights or (1.0,) * len(config.functions)
    weighted = [*zip(config.functions, weights, strict=True), *([(watched, 0.0)] if watched else [])]
    rewards = [
        Reward(name=name_of(word), function=_function(word, device, config.caution), weight=weight)
        for word, weight in weighted
    ]
    cautious = not config.caution or any(isinstance(r.function, trained.Ensemble) for r in rewards)
    require(cautious, "rewards.caution", config.caution, "0 without an ensemble among rewards.functions")
    return Rewards(rewards, on_error=config.on_error)


def name_of(word: str) -> str:
    """What a reward is called in the metrics: its function, or the run that trained the model."""
    path = Path(word.rpartition(":")[2])
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def _function(word: str, device: torch.device | str, caution: float) -> RewardFunction:
    if Path(word).is_dir():
        return trained.load(Path(word), device, caution=caution, name=name_of(word))
    if ":" not in word:
        choice("rewards.functions", word, [*FUNCTIONS, "<file.py>:<function>", "<reward model's folder>"])
        return FUNCTIONS[word]
    return from_file(word, "rewards.functions")


def from_file(word: str, field: str) -> Callable[..., Any]:
    """The function that `file.py:name` names; ValueErrors name `field`."""
    file, _, attribute = word.rpartition(":")
    require(Path(file).is_file(), field, word, "file.py:function with an existing file")
    spec = importlib.util.spec_from_file_location(str(Path(file).resolve()), file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their own module there
    spec.loader.exec_module(module)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ValueError(f"{field}={word!r}: {file} has no function {attribute!r}")
    function: Callable[..., Any] = found
    return function
