"""AdamW with warm-up, a schedule and gradient clipping: how every language model here is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rl_core.config import choice, require
from rl_core.distributed import clip_and_step
from rl_core.schedules import constant, cosine, linear, set_lr, warmup

SCHEDULES = ("linear", "cosine", "constant")


@dataclass(kw_only=True, slots=True)
class Config:
    """AdamW; the learning rate rises over `warmup` steps and falls to `final` of itself at the end."""

    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0  # not on biases and norms
    warmup: int = 0
    schedule: str = "linear"  # linear | cosine | constant
    final: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("lr", "max_grad_norm"):
            require(getattr(self, name) > 0, f"algo.optim.{name}", getattr(self, name), "> 0")
        for name in ("weight_decay", "warmup", "final"):
            require(getattr(self, name) >= 0, f"algo.optim.{name}", getattr(self, name), ">= 0")
        choice("algo.optim.schedule", self.schedule, SCHEDULES)
        falls = self.schedule != "constant" or not self.final
        require(
            falls,
            "algo.optim.final",
            self.final,
            "0 with algo.optim.schedule=constant; read by linear, cosine",
        )


def adamw(module: nn.Module, cfg: Config) -> torch.optim.AdamW:
    """AdamW over the parameters of `module` that are trained; only matrices decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": cfg.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), fused=True)


def plain_adamw(*parts: tuple[nn.Module, float]) -> torch.optim.AdamW:
    """AdamW without weight decay over the trained parameters of modules, each with its learning rate."""
    groups = [{"params": [p for p in m.parameters() if p.requires_grad], "lr": lr} for m, lr in parts]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)


def schedule(optimizer: Optimizer, cfg: Config, step: int, steps: int) -> None:
    """Set the learning rate of update `step` (from 1) of `steps`; a warm-up does not begin at 0."""
    fall = {
        "linear": lambda: linear(step - 1, 1.0, cfg.final, steps),
        "cosine": lambda: cosine(step - 1, 1.0, cfg.final, steps),
        "constant": lambda: constant(step, 1.0),
    }
    set_lr(optimizer, warmup(step, cfg.warmup) * fall[cfg.schedule]())


def apply_gradients(optimizer: Optimizer, cfg: Config) -> Tensor:
    """Sum over processes, clip, step, clear; returns the gradient's norm before the clip, a scalar."""
    norm = clip_and_step(optimizer, cfg.max_grad_norm)
    optimizer.zero_grad()
    return norm
