"""Running mean and variance of observations, and reward scaling by the spread of returns.

Both are `nn.Module`s whose numbers are buffers: they move with `.to(device)` and are saved with the policy
they normalise. Statistics are float64, because a float32 count stops growing at 16.7 million.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMeanStd(nn.Module):
    """Running mean and standard deviation; normalises to `(x - mean) / std`, clipped to +-`clip`.

    Before the first `update` it is the identity (mean 0, variance 1, up to the clip).
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] = (), *, clip: float = 10.0, eps: float = 1e-8) -> None:
        super().__init__()
        if clip <= 0:
            raise ValueError(f"clip={clip}: must be > 0")
        if eps <= 0:
            raise ValueError(f"eps={eps}: must be > 0, a constant feature would divide by zero")
        self.clip = clip
        self.eps = eps
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Merge the rows of `x [..., *shape]` into the statistics; no rows, no change.

        Chan et al. 1979, the parallel form of Welford: in any order and any split the result equals the
        mean and population variance of all rows together.
        """
        rows = x.to(torch.float64).reshape(-1, *self.mean.shape)
        n = rows.shape[0]
        if n == 0:
            return
        batch_mean = rows.mean(0)
        total = self.count + n
        delta = batch_mean - self.mean
        # count is 0 before the first update, which also drops the placeholder variance of 1
        sum_of_squares = self.var * self.count + (rows - batch_mean).square().sum(0)
        self.mean.add_(delta * (n / total))
        self.var.copy_((sum_of_squares + delta.square() * (self.count * n / total)) / total)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x [..., *shape]`, keeping its dtype."""
        mean, std = self.mean.to(x.dtype), (self.var + self.eps).sqrt().to(x.dtype)
        return ((x - mean) / std).clamp(-self.clip, self.clip)

    def inverse(self, x: Tensor) -> Tensor:
        """Back to original units, `[..., *shape]`; the inverse of `forward` for whatever was not clipped."""
        return x * (self.var + self.eps).sqrt().to(x.dtype) + self.mean.to(x.dtype)


class RewardScaler(nn.Module):
    """Divide rewards by the running standard deviation of the discounted return, without shifting them.

    The return of each of `N` environments runs forward, `G_t = r_t + gamma * G_{t-1}`, and starts anew
    after an episode, as in Stable-Baselines3's VecNormalize and OpenAI baselines.
    """

    returns: Tensor

    def __init__(self, num_envs: int, *, gamma: float, clip: float = 10.0, eps: float = 1e-8) -> None:
        super().__init__()
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma={gamma}: must lie in [0, 1]")
        self.gamma = gamma
        self.stats = RunningMeanStd(clip=clip, eps=eps)
        self.register_buffer("returns", torch.zeros(num_envs, dtype=torch.float64))

    @torch.no_grad()
    def update(self, reward: Tensor, ended: Tensor) -> None:
        """Take in one step of every environment: `reward [N]`, `ended [N]` (terminated or truncated)."""
        self.returns.mul_(self.gamma).add_(reward)
        self.stats.update(self.returns)
        self.returns.masked_fill_(ended, 0.0)

    def forward(self, reward: Tensor) -> Tensor:
        """Scale `reward [...]`, clipped to +-clip."""
        std = (self.stats.var + self.stats.eps).sqrt().to(reward.dtype)
        return (reward / std).clamp(-self.stats.clip, self.stats.clip)
