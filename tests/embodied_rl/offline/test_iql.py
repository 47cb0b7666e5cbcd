"""IQL against the loop-written losses, by hand, and on a bandit that cloning gets wrong."""

import pytest
import torch

from embodied_rl.models.critics import polyak
from embodied_rl.offline import bc, iql
from tests.reference import offline_losses as reference

ACTORS = ["gaussian", "deterministic"]


def test_expectile_loss_by_hand():
    diff = torch.tensor([1.0, -2.0])
    assert iql.expectile_loss(diff, 0.7).item() == pytest.approx((0.7 * 1 + 0.3 * 4) / 2)
    assert iql.expectile_loss(diff, 0.5).item() == pytest.approx(0.5 * 2.5)


@pytest.mark.parametrize("actor", ACTORS)
def test_updates_equal_the_reference(actor, batch, spec, clone):
    cfg = iql.Config(hidden=(16, 16), init="torch", temperature=3.0, actor=actor)
    agent = iql.Agent(cfg, spec, torch.Generator().manual_seed(0))
    twin = clone(iql, cfg, spec, agent)
    value_optimizer = torch.optim.Adam([*twin.value.parameters()], lr=cfg.lr)
    q_optimizer = torch.optim.Adam([*twin.critic.parameters()], lr=cfg.lr)
    actor_optimizer = torch.optim.Adam([*twin.actor.parameters()], lr=cfg.actor_lr)
    for _ in range(3):
        losses = reference.iql(
            batch,
            reference.members(twin.critic),
            reference.members(twin.target_critic),
            twin.value,
            twin.actor,
            cfg,
        )
        for loss, optimizer in zip(losses, (value_optimizer, q_optimizer, actor_optimizer), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        polyak(twin.target_critic, twin.critic, cfg.tau)
        metrics = iql.update(agent, batch, (), cfg)
        for name, loss in zip(("value_loss", "q_loss", "actor_loss"), losses, strict=True):
            torch.testing.assert_close(metrics[name], loss.detach(), rtol=1e-5, atol=1e-5)
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_weight_is_clipped(batch, spec):
    cfg = iql.Config(hidden=(8,), max_weight=0.5)
    agent = iql.Agent(cfg, spec, torch.Generator().manual_seed(0))
    assert iql.update(agent, batch, (), cfg)["weight"] <= 0.5


def test_dropout_is_honoured_by_both_actors(batch, spec):
    for actor in ACTORS:
        cfg = iql.Config(hidden=(8, 4), dropout=0.5, actor=actor)
        masks = iql.draw_noise(cfg, batch, torch.Generator().manual_seed(0))
        assert [mask.shape for mask in masks] == [(32, 8), (32, 4)]
        losses = [
            iql.update(iql.Agent(cfg, spec, torch.Generator().manual_seed(0)), batch, noise, cfg)[
                "actor_loss"
            ]
            for noise in (masks, ())
        ]
        assert losses[0] != losses[1]


def test_cosine_schedule_ends_near_zero(batch, rows, train):
    agent = train(iql, iql.Config(hidden=(8,), batch_size=8), rows(batch), steps=50)
    assert agent.actor_optimizer.param_groups[0]["lr"] < 1e-6
    assert agent.optimizer.param_groups[0]["lr"] == 3e-4
    constant = iql.Config(hidden=(8,), batch_size=8, actor_schedule="constant")
    agent = train(iql, constant, rows(batch), steps=5, name="constant")
    assert agent.actor_optimizer.param_groups[0]["lr"] == 3e-4


@pytest.mark.parametrize("actor", ACTORS)
def test_prefers_the_better_action_where_cloning_does_not(actor, bandit, train):
    common = {"hidden": (64, 64), "batch_size": 128}
    cloned = train(bc, bc.Config(lr=3e-3, **common), bandit, steps=300, name="bc")
    cfg = iql.Config(lr=3e-3, actor_lr=3e-3, temperature=10.0, actor=actor, **common)
    agent = train(iql, cfg, bandit, steps=300)
    obs = bandit.rows.obs[:200]
    assert cloned.actor.act(obs, True).mean() < 0.0  # between the two modes
    assert agent.actor.act(obs, True).mean().item() == pytest.approx(0.5, abs=0.15)
    assert ((agent.actor.act(obs, True) - 0.5).abs() < 0.3).float().mean() > 0.95
