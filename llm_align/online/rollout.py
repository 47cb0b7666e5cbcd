"""The one rollout: prompts in, groups of judged responses out, with the sampler's log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_align.data.batches import Responses
from llm_align.data.sampler import TokenBudget
from llm_align.data.tokens import Encoded, check_tokenizer
from llm_align.feedback import logged as logs
from llm_align.feedback.logged import Logged
from llm_align.feedback.rewards import Rewards
from llm_align.models.adapters import unwrap
from llm_align.models.engines import Engine, OwnEngine
from llm_align.models.generation import Generated
from llm_align.models.sampling import Sampling
from llm_align.online.turns import Environment, Limits, converse
from rl_core import distributed
from rl_core.config import require


@dataclass(kw_only=True, slots=True)
class Config:
    """How many responses a step draws, and how."""

    prompts: int = 8  # per step
    group_size: int = 8  # responses to each
    max_new_tokens: int = 128  # of a turn; a response cut there is a truncation
    temperature: float = 1.0
    top_k: int = 0  # with top_k or top_p the ratio to the sampler is off by the mass they cut
    top_p: float = 1.0
    max_turns: int = 1  # of the policy, where there is an environment

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("prompts", "group_size", "max_new_tokens", "max_turns"):
            require(getattr(self, name) >= 1, f"rollout.{name}", getattr(self, name), "at least 1")
        require(self.temperature > 0, "rollout.temperature", self.temperature, "> 0 (rollouts are sampled)")

    @property
    def limit(self) -> int:
        """The longest possible response, in tokens of the policy's."""
        return self.max_new_tokens * self.max_turns


def require_compared(config: Config, why: str, *, within: bool) -> None:
    """Raise ValueError unless a response has others to be compared with, in its group or in the rollout."""
    if within:
        require(config.group_size > 1, "rollout.group_size", config.group_size, f"2 or more with {why}")
    drawn = config.prompts * config.group_size
    require(drawn > 1, "rollout.prompts x group_size", drawn, f"2 or more with {why}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """B = P * G responses, those to one prompt next to each other, and what they earned.

    log_prob [B, L]: the sampler's, 0 outside `responses.loss_mask` · ended [B]: False where the limit cut the
    response · reward [B]: NaN where nothing judged it · parts: the same per reward function · texts: decoded.
    logged: what the reward functions said besides.
    """

    responses: Responses
    log_prob: Tensor
    ended: Tensor
    reward: Tensor
    parts: dict[str, Tensor]
    texts: list[str]
    group_size: int
    logged: Logged = field(default_factory=Logged)

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def judged_mask(self) -> Tensor:
        """`[B, L]` bool: the policy's tokens of responses that a reward function judged."""
        return self.responses.loss_mask & ~self.reward.isnan()[:, None]

    def to(self, device: torch.device | str) -> Samples:
        """The same samples on another device."""
        return Samples(
            responses=self.responses.to(device),
            log_prob=self.log_prob.to(device),
            ended=self.ended.to(device),
            reward=self.reward.to(device),
            parts={name: part.to(device) for name, part in self.parts.items()},
            texts=self.texts,
            group_size=self.group_size,
            logged=self.logged,
        )

    def grouped(self, x: Tensor) -> Tensor:
        """Per-response numbers `[B]` as `[P, G]`."""
        return x.view(-1, self.group_size)

    def select(self, rows: Tensor, group_size: int = 1) -> Samples:
        """The responses at `rows` (int64), trimmed; `group_size` is what their groups have left, if whole."""
        responses = self.responses.select(rows)
        return Samples(
            responses=responses,
            log_prob=self.log_prob[rows, : responses.response_ids.shape[1]],
            ended=self.ended[rows],
            reward=self.reward[rows],
            parts={name: part[rows] for name, part in self.parts.items()},
            texts=[self.texts[row] for row in rows.tolist()],
            group_size=group_size,
            logged=self.logged.select(rows.tolist()),
        )

    def groups(self, which: Tensor) -> Samples:
        """The groups where `which [P]` (bool) is True."""
        rows = which.repeat_interleave(self.group_size).nonzero()[:, 0]
        return self.select(rows, self.group_size)


def join(samples: Sequence[Samples]) -> Samples:
    """Samples of several rollouts with equal groups as one."""
    offsets = torch.tensor([0, *(s.responses.num_prompts for s in samples)]).cumsum(0).tolist()
    columns = {
        name: _stack([getattr(s.responses, name) for s in samples])
        for name in ("prompt_ids", "prompt_mask", "response_ids", "response_mask", "loss_mask")
    }
    index = [s.responses.prompt_index + offset for s, offset in zip(samples, offsets, strict=False)]
    return Samples(
        responses=Responses(prompt_index=torch.cat(index), **columns),
        log_prob=_stack([s.log_prob for s in samples]),
        ended=torch.cat([s.ended for s in samples]),
        reward=torch.cat([s.reward for s in samples]),
        parts={name: torch.cat([s.parts[name] for s in samples]) for name in samples[0].parts},
        texts=[text for s in samples for text in s.texts],
        group_size=samples[0].group_size,
        logged=logs.join([s.logged for s in samples], [len(s) for s in samples]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What an online run learns from: prompts with their columns, rewards, how to sample, perhaps a world.

    `engine` draws the responses; without one, the policy's own decode loop does. `environment` answers the
    policy's turns (`turns.Environment`). Of several processes each draws and judges its share of the prompts,
    and all get all samples. `tokenizer` decodes for the rewards and says what ends a response.
    """

    prompts: Sequence[Encoded]
    tokenizer: Any
    rewards: Rewards
    config: Config = field(default_factory=Config)
    engine: Engine | None = None
    environment: Environment | None = None

    def __post_init__(self) -> None:
        """Check the tokenizer and that there are prompts."""
        require(len(self.prompts) > 0, "prompts", 0, "at least one, within data.max_length tokens")
        turns, several = self.config.max_turns, self.config.max_turns > 1
        answered = several == (self.environment is not None)
        require(answered, "rollout.max_turns", turns, "above 1 with an environment, 1 without one")
        check_tokenizer(self.tokenizer)

    def sampler(self, seed: int) -> TokenBudget:
        """An endless, resumable order of prompts: each once an epoch, `config.prompts` at a time."""
        count = len(self.prompts)
        return TokenBudget([1] * count, count, seed, max_rows=self.config.prompts)

    def draw(
        self, policy: Any, rows: Sequence[int], generator: torch.Generator, *, group_size: int | None = None
    ) -> Samples:
        """Draw and judge `group_size` (or the configured number of) responses to each prompt in `rows`."""
        sampling = Sampling(
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            top_k=self.config.top_k,
            top_p=self.config.top_p,
            stop_ids=stop_ids(self.tokenizer, policy),
        )
        return self._sample(policy, rows, sampling, generator, group_size or self.config.group_size)

    def greedy(self, policy: Any, rows: Sequence[int], generator: torch.Generator) -> Samples:
        """Judge the greedy response to each prompt in `rows`; the generator is not moved by an own engine."""
        stops = stop_ids(self.tokenizer, policy)
        sampling = Sampling(max_new_tokens=self.config.max_new_tokens, temperature=0, stop_ids=stops)
        state = generator.get_state()
        samples = self._sample(policy, rows, sampling, generator, 1)
        generator.set_state(state)
        return samples

    def _sample(
        self,
        policy: Any,
        rows: Sequence[int],
        sampling: Sampling,
        generator: torch.Generator,
        group_size: int,
    ) -> Samples:
        own, weight = distributed.share(list(rows))
        with distributed.whole(policy):
            samples = self._sample_own(policy, own, sampling, distributed.fork(generator), group_size)
        if distributed.size() == 1:
            return samples
        parts = distributed.gather((samples.to("cpu"), weight))
        return join([part for part, weight in parts if weight]).to(generator.device)

    def _sample_own(
        self,
        policy: Any,
        rows: Sequence[int],
        sampling: Sampling,
        generator: torch.Generator,
        group_size: int,
    ) -> Samples:
        chosen = [self.prompts[row] for row in rows]
        engine = self.engine or OwnEngine(policy)
        prompts = [item.prompt for item in chosen]
        if self.environment is None:
            drawn = engine.generate(prompts, sampling, generator=generator, num_samples=group_size)
        else:
            drawn = converse(
                engine,
                chosen,
                sampling,
                self.environment,
                self.tokenizer,
                generator=generator,
                num_samples=group_size,
                limits=Limits(self.config.max_turns, context_of(policy)),
            )
        return self._judge(drawn, [item for item in chosen for _ in range(group_size)], group_size)

    def _judge(self, drawn: Generated, asked: list[Encoded], group_size: int) -> Samples:
        ids = drawn.responses.response_lists()
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        prompts = [item.example.prompt for item in asked]
        chat = [isinstance(prompt, list) for prompt in prompts]
        completions = [
            [{"role": "assistant", "content": text}] if is_chat else text
            for text, is_chat in zip(texts, chat, strict=True)
        ]
        names = {name for item in asked for name in item.example.columns or {}}
        columns = {name: [(item.example.columns or {}).get(name) for item in asked] for name in sorted(names)}
        scores = self.rewards(prompts, completions, ids, responses=drawn.responses, columns=columns)
        device = drawn.log_prob.device
        return Samples(
            responses=drawn.responses,
            log_prob=drawn.log_prob,
            ended=drawn.ended,
            reward=scores.total.to(device),
            parts={name: part.to(device) for name, part in scores.parts.items()},
            texts=texts,
            group_size=group_size,
            logged=scores.logged,
        )


def context_of(model: Any) -> int | None:
    """How many tokens the model has positions for; None where it has no such bound."""
    return getattr(unwrap(model).config.get_text_config(), "max_position_embeddings", None)


def stop_ids(tokenizer: Any, model: Any) -> tuple[int, ...]:
    """Tokens that end a response: the tokenizer's EOS and what the model's generation settings add to it."""
    settings = getattr(unwrap(model), "generation_config", None)
    others = getattr(settings, "eos_token_id", None)
    others = others if isinstance(others, list) else [] if others is None else [others]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *others]))


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate `[*, W]` of different widths, the narrower ones padded with 0 or False."""
    width = max(tensor.shape[1] for tensor in tensors)
    return torch.cat([F.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])
