"""Behaviour cloning fits the data's actions with each actor."""

import pytest
import torch

from embodied_rl.data.types import Batch
from embodied_rl.offline import bc


@pytest.mark.parametrize("actor", bc.ACTORS)
def test_learns_a_function_of_the_observation(actor, rows, train):
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(500, 3, generator=generator)
    action = torch.tanh(obs[:, :2])
    zeros = torch.zeros(500)
    data = rows(Batch(obs=obs, action=action, reward=zeros, next_obs=obs, discount=zeros))
    cfg = bc.Config(actor=actor, hidden=(64, 64), lr=3e-3, batch_size=128)
    agent = train(bc, cfg, data, steps=250)
    assert (agent.actor.act(obs, True) - action).square().mean() < 0.01


def test_loss_by_hand(batch, spec):
    agent = bc.Agent(bc.Config(hidden=(8,)), spec, torch.Generator().manual_seed(0))
    expected = (agent.actor(batch.obs) - batch.action).square().sum(1).mean().detach()
    torch.testing.assert_close(bc.update(agent, batch, (), bc.Config())["actor_loss"], expected)
