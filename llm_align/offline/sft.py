"""Supervised fine-tuning: maximise the log-likelihood of demonstrations.

    L = - (1 / sum_i |y_i|) sum_i sum_t log pi(y_it | x_i, y_i,<t)

over the tokens the assistant wrote, each of which weighs the same whatever batch part it is in. Sequences are
packed under a block mask, so packing changes the speed and not the numbers. `loss="dft"` weighs each token by
its own probability, without gradient (dynamic fine-tuning, arXiv:2508.05629): what the model would hardly say
moves it little.

Quality prompts (conditional SFT, as in Quark, arXiv:2205.13636, and Chain of Hindsight, arXiv:2302.02676):
with `good_prompt` and `bad_prompt`, rated answers are learnt behind a text that says how good they are, and
the model is asked behind `good_prompt` afterwards. Bad answers then teach too, instead of being thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from llm_align.data import examples as kinds
from llm_align.data.examples import Example
from llm_align.data.loader import Batch, Batches
from llm_align.data.readers import Row, require_columns
from llm_align.models import optim
from llm_align.models.log_probs import log_probs
from llm_align.models.parallel import distribute
from rl_core import distributed
from rl_core.config import choice, require
from rl_core.reductions import token_mean
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """Usual values for a model of some billions; from scratch the learning rate is near 1e-3."""

    name: str = "sft"
    loss: str = "nll"  # nll | dft
    accumulate: int = 1  # batches to an update
    learn_prompts: bool = False  # of texts too: a model from scratch knows no language yet
    good_prompt: str = ""  # both: learn rated answers behind these texts
    bad_prompt: str = ""
    optim: optim.Config = field(default_factory=lambda: optim.Config(lr=2e-5, schedule="cosine", warmup=10))

    def __post_init__(self) -> None:
        """Check ranges."""
        choice("algo.loss", self.loss, ["nll", "dft"])
        require(self.accumulate >= 1, "algo.accumulate", self.accumulate, "at least 1")
        both = bool(self.good_prompt) == bool(self.bad_prompt)
        require(both, "algo.bad_prompt", self.bad_prompt, "given together with algo.good_prompt")


def to_examples(rows: Sequence[Row], cfg: Config) -> list[Example]:
    """Demonstrations among `rows`; of preferences the chosen side, or both sides behind quality prompts."""
    demonstrations = (("prompt", "completion"), ("messages",), ("text",))
    columns = require_columns(rows, *demonstrations, ("chosen", "rejected"))
    if cfg.good_prompt:
        examples = condition(kinds.ratings(rows), cfg.good_prompt, cfg.bad_prompt)
    elif columns == ("chosen", "rejected"):
        pairs = kinds.preferences(rows)
        examples = [Example(prompt=pair.prompt, responses=pair.responses[:1]) for pair in pairs]
    else:
        examples = kinds.demonstrations(rows)
    return [_whole(example) for example in examples] if cfg.learn_prompts else examples


def _whole(example: Example) -> Example:
    """The example as one text, all of which is learnt."""
    if isinstance(example.prompt, list):
        raise ValueError("algo.learn_prompts=True: prompts are chats; data.loss_on=all learns those")
    return Example(prompt=None, responses=[(example.prompt or "") + str(example.responses[0])])


def condition(rated: Sequence[Example], good: str, bad: str) -> list[Example]:
    """Put `good` or `bad` before the prompt of each rated example, by its label."""
    return [
        replace(example, prompt=with_quality(example.prompt, good if example.labels[0] else bad))
        for example in rated
        if example.labels
    ]


def with_quality(prompt: Any, quality: str) -> Any:
    """The prompt behind a quality text: before a plain text, or as the system message of a chat."""
    if isinstance(prompt, list):
        return [{"role": "system", "content": quality}, *prompt]
    return quality + (prompt or "")


class Agent(nn.Module):
    """The policy and its optimizer."""

    def __init__(self, policy: Any, cfg: Config) -> None:
        super().__init__()
        self.policy = policy
        self.optimizer = optim.adamw(policy, cfg.optim)


def update(agent: Agent, batches: Sequence[Batch], cfg: Config) -> dict[str, Tensor]:
    """One optimizer step on the token mean over `batches`; returns the loss before it."""
    num_tokens = distributed.total(torch.stack([b.responses.loss_mask.sum() for b in batches]).sum())
    total = torch.zeros((), device=batches[0].mask.device)
    for batch in batches:
        log_prob = log_probs(agent.policy, batch.responses).log_prob
        weight = log_prob.detach().exp() if cfg.loss == "dft" else 1.0
        loss = token_mean(-weight * log_prob, batch.responses.loss_mask, num_tokens)
        loss.backward()
        total += loss.detach()
    norm = optim.apply_gradients(agent.optimizer, cfg.optim)
    return {"loss": distributed.total(total), "grad_norm": norm, "tokens": num_tokens}


@torch.no_grad()
def evaluate(agent: Agent, data: Batches) -> dict[str, float]:
    """Negative log-likelihood in nats a token, and the perplexity, over all of `data`."""
    agent.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in data.once():
        log_prob = log_probs(agent.policy, batch.responses).log_prob.double().sum()
        sums += torch.stack([-log_prob, batch.responses.loss_mask.sum()]).cpu()
    agent.train()
    nll, tokens = distributed.total(sums).tolist()
    loss = nll / tokens
    return {"loss": loss, "perplexity": float(torch.tensor(loss).exp())}


def train(cfg: Config, policy: Any, data: Batches, held_out: Batches | None, run: Run) -> Agent:
    """Fine-tune `policy` for `run.cfg.steps` updates; evaluates on `held_out` where there is one."""
    agent = Agent(distribute(policy.to(run.device).train(), run.cfg.distributed), cfg)
    step_fn = run.accelerate(update)
    for step in run.steps(agent, data=data):
        optim.schedule(agent.optimizer, cfg.optim, step, run.cfg.steps)
        run.log(step, step_fn(agent, [data.next() for _ in range(cfg.accumulate)], cfg))
        if held_out is not None and run.should_eval(step):
            run.log(step, evaluate(agent, held_out), group="eval")
    return agent
