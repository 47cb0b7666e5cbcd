"""Behaviour cloning with each actor: against the loop-written loss, by hand, and on data it must fit."""

import pytest
import torch

from embodied_rl.data.types import Batch
from embodied_rl.models.actors import ACTORS
from embodied_rl.offline import bc
from tests.reference import offline_losses as reference


@pytest.mark.parametrize("actor", ACTORS)
def test_learns_a_function_of_the_observation(actor, rows, train):
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(500, 3, generator=generator)
    action = torch.tanh(obs[:, :2])
    zeros = torch.zeros(500)
    data = rows(Batch(obs=obs, action=action, reward=zeros, next_obs=obs, discount=zeros))
    cfg = bc.Config(actor=actor, hidden=(64, 64), lr=3e-3, batch_size=128)
    agent = train(bc, cfg, data, steps=250)
    assert (agent.actor.act(obs, True) - action).square().mean() < 0.01


@pytest.mark.parametrize("actor", ACTORS)
def test_updates_equal_the_reference(actor, batch, spec, clone):
    cfg = bc.Config(actor=actor, hidden=(16, 16))
    agent = bc.Agent(cfg, spec, torch.Generator().manual_seed(0))
    twin = clone(bc, cfg, spec, agent)
    optimizer = torch.optim.Adam(twin.actor.parameters(), lr=cfg.lr)
    for _ in range(3):
        loss = reference.bc(batch, twin.actor, actor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        metrics = bc.update(agent, batch, (), cfg)
        torch.testing.assert_close(metrics["actor_loss"], loss.detach(), rtol=1e-5, atol=1e-5)
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_loss_by_hand(batch, spec):
    """An actor that always says 0 is as far off as the actions are long."""
    agent = bc.Agent(bc.Config(hidden=(8,)), spec, torch.Generator().manual_seed(0))
    for parameter in agent.actor.net.layers[-1].parameters():
        parameter.data.zero_()
    loss = bc.update(agent, batch, (), bc.Config())["actor_loss"]
    torch.testing.assert_close(loss, batch.action.square().sum(1).mean())
