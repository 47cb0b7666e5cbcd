"""TD3+BC against the loop-written losses, its delay, and a bandit that cloning gets wrong."""

import pytest
import torch

from embodied_rl.models.critics import polyak
from embodied_rl.offline import td3_bc
from tests.reference import offline_losses as reference


def test_updates_equal_the_reference(batch, spec, clone):
    cfg = td3_bc.Config(hidden=(16, 16))
    generator = torch.Generator().manual_seed(0)
    agent = td3_bc.Agent(cfg, spec, generator)
    twin = clone(td3_bc, cfg, spec, agent)
    optimizer = torch.optim.Adam(twin.critic.parameters(), lr=cfg.critic_lr)
    actor_optimizer = torch.optim.Adam(twin.actor.parameters(), lr=cfg.actor_lr)
    for _ in range(2):
        noise = td3_bc.draw_noise(cfg, batch, generator)
        critics, targets = reference.members(twin.critic), reference.members(twin.target_critic)
        q_loss = reference.td3_bc_critic(batch, noise, critics, targets, twin.target_actor)
        optimizer.zero_grad()
        q_loss.backward()
        optimizer.step()
        actor_loss = reference.td3_bc_actor(batch, critics[0], twin.actor, cfg.alpha)
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
        polyak(twin.target_critic, twin.critic, cfg.tau)
        polyak(twin.target_actor, twin.actor, cfg.tau)
        metrics = td3_bc.update(agent, batch, noise, cfg) | td3_bc.update_actor(agent, batch, cfg)
        torch.testing.assert_close(metrics["q_loss"], q_loss.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(metrics["actor_loss"], actor_loss.detach(), rtol=1e-5, atol=1e-5)
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_noise_is_clipped(batch):
    noise = td3_bc.draw_noise(td3_bc.Config(policy_noise=10.0), batch, torch.Generator().manual_seed(0))
    assert noise.shape == batch.action.shape
    assert noise.abs().max() == 0.5


def test_actor_and_targets_move_every_second_step(batch, rows, train):
    cfg = td3_bc.Config(hidden=(8,), batch_size=8)
    after = [train(td3_bc, cfg, rows(batch), steps=n, name=str(n)).state_dict() for n in (1, 2, 3)]
    moved = {
        name: [not torch.equal(a[name], b[name]) for a, b in zip(after[:-1], after[1:], strict=True)]
        for name in after[0]
    }
    for name, steps in moved.items():
        assert steps == ([True, True] if name.startswith("critic.") else [True, False]), name


def test_prefers_the_better_action(bandit, train):
    cfg = td3_bc.Config(hidden=(64, 64), batch_size=128, actor_lr=1e-3, critic_lr=3e-3)
    agent = train(td3_bc, cfg, bandit, steps=600)
    assert agent.actor.act(bandit.rows.obs[:200], True).mean().item() == pytest.approx(0.5, abs=0.2)
