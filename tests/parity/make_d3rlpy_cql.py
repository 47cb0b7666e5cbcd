"""Write `d3rlpy_cql.npz`: one critic and one actor loss of d3rlpy 2.8.1's CQL with everything they depend on.

    .venv-d3rlpy/bin/python tests/parity/make_d3rlpy_cql.py       (`make bench` makes that environment)

Keys: `batch/*`, `noise/*` (as `embodied_rl.offline.cql.Noise`), `weight/*` and `grad/*` (d3rlpy's own
parameter names under policy, q_funcs, targ_q_funcs), `loss/*`. All losses are taken before any step.
"""

from pathlib import Path

import d3rlpy
import numpy as np
import torch
from d3rlpy.torch_utility import TorchMiniBatch

OBS, ACTION, ROWS, SAMPLES, HIDDEN = 4, 2, 5, 3, [16, 16]


def main() -> None:
    torch.manual_seed(0)
    encoder = d3rlpy.models.encoders.VectorEncoderFactory(HIDDEN)
    algo = d3rlpy.algos.CQLConfig(
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        conservative_weight=5.0,
        alpha_threshold=0.0,
        alpha_learning_rate=0.0,
        temp_learning_rate=1e-30,  # computes the temperature's loss without moving it from 1
        n_action_samples=SAMPLES,
    ).create()
    algo.create_impl((OBS,), ACTION)
    modules = algo.impl.modules
    for parameter in modules.targ_q_funcs.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    batch = {
        "observations": torch.randn(ROWS, OBS),
        "actions": torch.rand(ROWS, ACTION) * 2 - 1,
        "rewards": torch.randn(ROWS, 1),
        "next_observations": torch.randn(ROWS, OBS),
        "terminals": torch.tensor([[0.0], [0.0], [1.0], [0.0], [0.0]]),
    }
    noise = {
        "current": torch.randn(ROWS, SAMPLES, ACTION),
        "next": torch.randn(ROWS, SAMPLES, ACTION),
        "uniform": torch.rand(ROWS, SAMPLES, ACTION) * 2 - 1,
        "policy": torch.randn(ROWS, ACTION),
    }
    normals = iter([noise["current"].transpose(0, 1), noise["next"].transpose(0, 1), noise["policy"]])
    torch.distributions.normal._standard_normal = lambda shape, **_: next(normals).reshape(shape)
    torch.Tensor.uniform_ = lambda self, low, high: self.copy_(noise["uniform"].reshape(self.shape))

    mini_batch = TorchMiniBatch(
        **batch,
        next_actions=batch["actions"],
        returns_to_go=batch["rewards"],
        intervals=torch.ones(ROWS, 1),
        device="cpu",
    )
    critic = algo.impl.compute_critic_grad(mini_batch)
    gradients = {f"q_funcs/{name}": p.grad.clone() for name, p in modules.q_funcs.named_parameters()}
    actor = algo.impl.compute_actor_grad(mini_batch)
    gradients |= {f"policy/{name}": p.grad for name, p in modules.policy.named_parameters()}
    arrays = {f"batch/{key}": value for key, value in batch.items()}
    arrays |= {f"noise/{key}": value for key, value in noise.items()}
    for part in ("policy", "q_funcs", "targ_q_funcs"):
        arrays |= {f"weight/{part}/{name}": p for name, p in getattr(modules, part).named_parameters()}
    arrays |= {f"grad/{name}": value for name, value in gradients.items()}
    arrays["loss/critic"], arrays["loss/conservative"] = critic.critic_loss, critic.conservative_loss
    arrays["loss/actor"], arrays["loss/temperature"] = actor.actor_loss, actor.temp_loss
    file = Path(__file__).with_name("d3rlpy_cql.npz")
    np.savez_compressed(file, **{key: value.detach().numpy() for key, value in arrays.items()})


if __name__ == "__main__":
    main()
