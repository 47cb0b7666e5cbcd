"""A 4-token language that a 2-layer model learns in seconds: the reward is the share of the letter `a`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llm_align.data.examples import Example
from llm_align.data.tokens import encode
from llm_align.feedback.rewards import Reward, Rewards
from llm_align.models.causal_lm import Small, small_causal_lm
from llm_align.online import rollout
from rl_core import run as runs

VOCAB = {"[eos]": 0, "[pad]": 1, "a": 2, "b": 3, "c": 4, "d": 5}
LENGTH = 6


def tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel(VOCAB, unk_token="[pad]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="[eos]", pad_token="[pad]")


def share_of_a(completion_ids: list[list[int]]) -> list[float]:
    return [row.count(VOCAB["a"]) / LENGTH for row in completion_ids]


def make_task(
    function: Callable[..., Any] = share_of_a, *, environment: Any = None, **options: Any
) -> rollout.Task:
    tok = tokenizer()
    prompts = [
        Example(prompt=text, responses=[], columns={"answer": text}) for text in ("a b", "b c", "d", "c")
    ]
    settings = {"prompts": 4, "group_size": 8, "max_new_tokens": LENGTH} | options
    return rollout.Task(
        prompts=encode(tok, prompts, max_length=32),
        tokenizer=tok,
        rewards=Rewards([Reward(name="share", function=function)]),
        config=rollout.Config(**settings),
        environment=environment,
    )


def make_policy(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "max_length": 64}
    return small_causal_lm(Small(vocab_size=len(VOCAB), eos_token_id=0, pad_token_id=1, **sizes)).eval()


class Trainer:
    """Runs an algorithm's `train` in fresh directories and keeps the metrics."""

    def __init__(self, root: Path) -> None:
        self._root, self._count = root, 0

    def __call__(
        self, module: Any, cfg: Any, steps: int, *, name: str = "", resume: bool = False, **options: Any
    ) -> Any:
        self._count += 1
        settings = runs.Config(
            dir=str(self._root / (name or str(self._count))),
            steps=steps,
            log_every=1,
            eval_every=10_000,
            checkpoint_every=options.pop("checkpoint_every", 10_000),
            device="cpu",
            resume=resume,
            tensorboard=False,
        )
        task, policy = options.pop("task", None) or make_task(), options.pop("policy", None) or make_policy()
        with runs.Run(settings, config=SavedConfig(algo=cfg, run=settings)) as run:
            return module.train(cfg, task, policy, run, **options)


@dataclass
class SavedConfig:
    algo: Any
    run: Any


@pytest.fixture
def train(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)


def mean_reward(policy: Any, seed: int = 9) -> float:
    """Of 64 responses to each prompt."""
    task = make_task()
    drawn = task.draw(policy, range(4), torch.Generator().manual_seed(seed), group_size=64)
    return float(drawn.reward.mean())


@pytest.fixture
def language() -> SimpleNamespace:
    """The helpers above, for the test modules (they cannot import a conftest)."""
    return SimpleNamespace(
        task=make_task,
        policy=make_policy,
        mean_reward=mean_reward,
        tokenizer=tokenizer,
        vocab=VOCAB,
        length=LENGTH,
    )


@pytest.fixture
def same_weights() -> Callable[[Any, Any], bool]:
    def same(a: Any, b: Any) -> bool:
        pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        return all(torch.equal(x, y) for x, y in pairs)

    return same
