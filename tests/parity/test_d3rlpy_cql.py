"""CQL's losses and gradients equal d3rlpy's on its weights, batch and noise (`make_d3rlpy_cql.py`)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.learning_offline import OURS
from embodied_rl.data.types import Batch, Spec
from embodied_rl.offline import cql

LAYERS = ("_encoder._layers.0", "_encoder._layers.2", "_fc")


@pytest.fixture(scope="module", name="peer")
def _peer():
    with np.load(Path(__file__).with_name("d3rlpy_cql.npz")) as file:
        return {key: torch.from_numpy(value) for key, value in file.items()}


def stacked(peer, part, kind):
    """d3rlpy's two critics as `[2, in, out]` and `[2, 1, out]` layer by layer, as a TwinCritic holds them."""

    def both(name):
        return torch.stack([torch.atleast_2d(peer[f"{part}/{i}.{name}.{kind}"]) for i in range(2)])

    return [both(name).mT if kind == "weight" else both(name) for name in LAYERS]


def of_actor(peer, part):
    """Our actor's parameters in d3rlpy's: it has the heads of mean and log_std apart."""
    values = {}
    for index, name in enumerate(LAYERS[:2]):
        for kind in ("weight", "bias"):
            values[f"net.layers.{index}.{kind}"] = peer[f"{part}/{name}.{kind}"]
    for kind in ("weight", "bias"):
        heads = [peer[f"{part}/{head}.{kind}"] for head in ("_mu", "_logstd")]
        values[f"net.layers.2.{kind}"] = torch.cat(heads)
    return values


def test_losses_and_gradients_equal_d3rlpy(peer):
    cfg = cql.Config(hidden=(16, 16), num_actions=3, **OURS["cql"])
    bound = np.ones(2, np.float32)
    spec = Spec(env_id="", obs_keys=("o",), obs_dims=(4,), action_low=-bound, action_high=bound)
    agent = cql.Agent(cfg, spec, torch.Generator().manual_seed(1))
    agent.actor.load_state_dict(of_actor(peer, "weight/policy"), strict=False)
    for critic, part in ((agent.critic, "q_funcs"), (agent.target_critic, "targ_q_funcs")):
        for kind, own in (("weight", critic.weights), ("bias", critic.biases)):
            for parameter, value in zip(own, stacked(peer, f"weight/{part}", kind), strict=True):
                parameter.data.copy_(value)
    batch = Batch(
        obs=peer["batch/observations"],
        action=peer["batch/actions"],
        reward=peer["batch/rewards"].squeeze(1),
        next_obs=peer["batch/next_observations"],
        discount=0.99 * (1 - peer["batch/terminals"].squeeze(1)),
    )
    noise = cql.draw_noise(cfg, batch, torch.Generator().manual_seed(2))
    for name in ("policy", "current", "next", "uniform"):
        getattr(noise, name).copy_(peer[f"noise/{name}"])
    metrics = cql.update(agent, batch, noise, cfg)

    def check(ours, theirs, what):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, msg=lambda text: f"{what}: {text}")

    conservative = 2 * cfg.conservative_weight * metrics["conservative_gap"]
    check(conservative, peer["loss/conservative"], "conservative loss")
    check(metrics["td_loss"] + conservative, peer["loss/critic"], "critic loss")
    check(metrics["actor_loss"], peer["loss/actor"], "actor loss")
    # at alpha = 1 the derivative of d3rlpy's -alpha (log pi - A) by log alpha is the loss itself
    check(agent.log_alpha.grad, peer["loss/temperature"], "temperature")
    for kind, own in (("weight", agent.critic.weights), ("bias", agent.critic.biases)):
        for index, value in enumerate(stacked(peer, "grad/q_funcs", kind)):
            check(own[index].grad, value, f"critic {kind} {index}")
    for name, value in of_actor(peer, "grad/policy").items():
        check(agent.actor.get_parameter(name).grad, value, name)
    assert agent.actor.log_std_offset.grad is None  # d3rlpy has none
