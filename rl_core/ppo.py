"""The PPO update (Schulman et al. 2017, arXiv:1707.06347), one function for robot steps and whole responses.

Departures: 1) advantages are whitened once over the whole rollout, not per minibatch, so that the minibatch
size does not change their scale. 2) The KL stop looks at every minibatch before its step and leaves that
step out. 3) The minibatches of an epoch differ in size by one row at most, instead of a small last one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from rl_core import distributed
from rl_core.config import require
from rl_core.policy_losses import clipped_surrogate, clipped_value_loss, ratio_stats, token_ratio
from rl_core.reductions import masked_mean, token_mean, whiten


@dataclass(kw_only=True, slots=True)
class Config:
    """Numbers of the update; the defaults are the paper's for continuous control (table 3)."""

    epochs: int = 10
    minibatch_size: int = 64  # rows: robot steps, or whole responses
    clip_low: float = 0.2
    clip_high: float = 0.2
    value_clip: float = math.inf  # in units of the returns; the paper does not clip the value
    value_coef: float = 0.5
    entropy_coef: float = 0.0
    max_grad_norm: float = 0.5
    target_kl: float = math.inf  # nats per step; a finite one reads the KL back from the device at each step

    def __post_init__(self) -> None:
        """Reject what cannot train, by name."""
        for name in ("epochs", "minibatch_size"):
            require(getattr(self, name) >= 1, f"ppo.{name}", getattr(self, name), ">= 1")
        for name in ("clip_low", "clip_high", "value_clip", "max_grad_norm", "target_kl"):
            require(getattr(self, name) > 0, f"ppo.{name}", getattr(self, name), "> 0")
        for name in ("value_coef", "entropy_coef"):
            require(getattr(self, name) >= 0, f"ppo.{name}", getattr(self, name), ">= 0")


@dataclass(kw_only=True, slots=True)
class Rollout:
    """`n` rows of experience; per-step scalars are `[n]` for robot steps, `[n, L]` for responses.

    `inputs` holds whatever `evaluate` needs to run the networks on the same rows, every tensor `[n, ...]`.
    """

    inputs: Mapping[str, Tensor]
    log_prob: Tensor  # of the action taken, under the policy that took it
    value: Tensor  # estimated at rollout time
    advantage: Tensor
    returns: Tensor
    mask: Tensor | None = None  # bool, True counts

    def __len__(self) -> int:
        return len(self.log_prob)

    def __getitem__(self, index: Tensor) -> Rollout:
        """The rows at `index [b]` (int64), or where a bool `index [n]` is True."""
        return Rollout(
            inputs={name: x[index] for name, x in self.inputs.items()},
            log_prob=self.log_prob[index],
            value=self.value[index],
            advantage=self.advantage[index],
            returns=self.returns[index],
            mask=None if self.mask is None else self.mask[index],
        )


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """What the present networks say of the rows: each `[b]` or `[b, L]`, with gradient.

    `penalty` is a scalar added to the loss: a KL term, a pretraining loss.
    """

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    penalty: Tensor | None = None


def ppo_update(
    evaluate: Callable[[Rollout], Evaluation],
    optimizer: Optimizer,
    rollout: Rollout,
    config: Config,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Improve the parameters in `optimizer` on one rollout, epochs x minibatches in an order drawn at random.

    `evaluate(rows)` runs the networks on some rows of the rollout. Returns scalars: the parts of the loss,
    entropy, `clip_fraction` and `grad_norm` averaged over the steps taken (absent if none was), `approx_kl`
    and `ratio_max` of the last minibatch looked at, `explained_variance` of the values at rollout time, and
    `updates`, the steps taken.
    """
    if len(rollout) == 0:
        raise ValueError("rollout: 0 rows; must hold at least one")
    rollout = dataclasses.replace(rollout, advantage=whiten(rollout.advantage, rollout.mask))
    num_minibatches = math.ceil(len(rollout) / config.minibatch_size)
    history: list[dict[str, Tensor]] = []
    for _ in range(config.epochs):
        order = torch.randperm(len(rollout), generator=generator, device=generator.device)
        for index in order.to(rollout.log_prob.device).tensor_split(num_minibatches):
            rows, weight = _own(rollout, index)
            loss, stats = ppo_loss(evaluate, rows, config)
            stats = distributed.combine(
                {name: x if name.endswith("_max") else weight * x for name, x in stats.items()}
            )
            # `not <=` instead of `>`: a NaN stops too
            if math.isfinite(config.target_kl) and not stats["approx_kl"] <= config.target_kl:
                return _summary(history, stats, rollout)
            optimizer.zero_grad(set_to_none=True)
            (weight * loss).backward()  # type: ignore[no-untyped-call]
            stats["grad_norm"] = distributed.clip_and_step(optimizer, config.max_grad_norm)
            history.append(stats)
    return _summary(history, stats, rollout)


def _own(rollout: Rollout, index: Tensor) -> tuple[Rollout, Tensor | float]:
    """This process's rows of a minibatch, and its share of the minibatch's steps: what its means weigh."""
    if distributed.size() == 1:
        return rollout[index], 1.0
    own, weight = distributed.share(index)
    if rollout.mask is None:
        return rollout[own], weight * len(own) / len(index)
    return rollout[own], weight * rollout.mask[own].sum() / rollout.mask[index].sum()


def ppo_loss(
    evaluate: Callable[[Rollout], Evaluation], rows: Rollout, config: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped policy loss + value loss - entropy bonus of some rows, a scalar, and detached scalars to log.

    Each part is a mean over the steps in the mask.
    """
    now = evaluate(rows)
    ratio = token_ratio(now.log_prob, rows.log_prob, rows.mask)
    low, high = config.clip_low, config.clip_high
    surrogate = clipped_surrogate(ratio, rows.advantage, clip_low=low, clip_high=high)
    policy = token_mean(surrogate, rows.mask)
    value = token_mean(
        clipped_value_loss(now.value, rows.value, rows.returns, clip_range=config.value_clip), rows.mask
    )
    entropy = token_mean(now.entropy, rows.mask)
    loss = policy + config.value_coef * value - config.entropy_coef * entropy
    stats = ratio_stats(now.log_prob, rows.log_prob, rows.mask, clip_low=low, clip_high=high)
    if now.penalty is not None:
        loss = loss + now.penalty
        stats["penalty"] = now.penalty.detach()
    stats |= {"policy_loss": policy.detach(), "value_loss": value.detach(), "entropy": entropy.detach()}
    return loss, stats


def _summary(
    history: list[dict[str, Tensor]], last: dict[str, Tensor], rollout: Rollout
) -> dict[str, Tensor]:
    error = masked_mean((rollout.returns - rollout.value).square(), rollout.mask)
    center = masked_mean(rollout.returns, rollout.mask)
    spread = masked_mean((rollout.returns - center).square(), rollout.mask)
    averaged = {
        name: torch.stack([s[name] for s in history]).mean() for name in (history[0] if history else {})
    }
    return averaged | {
        "approx_kl": last["approx_kl"],
        "ratio_max": last["ratio_max"],
        "explained_variance": 1.0 - error / spread.clamp_min(1e-8),
        "updates": torch.tensor(float(len(history))),
    }
