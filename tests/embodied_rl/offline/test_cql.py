"""CQL against the loop-written losses of SimpleSAC, by hand, and its lower bound on unseen actions."""

import math

import pytest
import torch

from embodied_rl.models.critics import polyak
from embodied_rl.offline import cql
from tests.reference import offline_losses as reference

VARIANTS = {
    "default": {},
    "lagrange": {"target_gap": 0.8, "log_lagrange_init": 1.0},
    "max_backup": {"max_backup": True, "backup_entropy": True},
    "no_importance_sampling": {"importance_sampling": False, "cql_temperature": 2.0},
    "clipped": {"clip_diff_min": -1.0, "clip_diff_max": 2.5},
    "one_sample": {
        "num_actions": 1,
        "log_std_multiplier": 0.5,
        "log_std_offset": -1.0,
        "learn_log_std": True,
    },
    "mode": {"target_action": "mode"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_equal_the_reference(variant, batch, spec, clone):
    cfg = cql.Config(**{"hidden": (16, 16), "num_actions": 4, **VARIANTS[variant]})
    batch = batch.map(lambda x: x[:8])
    generator = torch.Generator().manual_seed(0)
    agent = cql.Agent(cfg, spec, generator)
    twin = clone(cql, cfg, spec, agent)
    optimizers = {
        "alpha": torch.optim.Adam([twin.log_alpha], lr=cfg.policy_lr),
        "actor": torch.optim.Adam([p for p in twin.actor.parameters() if p.requires_grad], lr=cfg.policy_lr),
        "critic": torch.optim.Adam(twin.critic.parameters(), lr=cfg.critic_lr),
        "lagrange": torch.optim.Adam([twin.log_lagrange], lr=cfg.critic_lr),
    }
    for _ in range(2):
        noise = cql.draw_noise(cfg, batch, generator)
        losses = reference.cql(
            batch,
            noise,
            reference.members(twin.critic),
            reference.members(twin.target_critic),
            twin.actor,
            twin.log_alpha,
            twin.log_lagrange,
            cfg,
        )
        losses["critic"] = losses["td"] + losses["conservative"]
        gradients = {
            name: torch.autograd.grad(
                losses[name], optimizers[name].param_groups[0]["params"], retain_graph=True
            )
            for name in optimizers
            if losses[name].requires_grad
        }
        for name, gradient in gradients.items():
            for parameter, value in zip(optimizers[name].param_groups[0]["params"], gradient, strict=True):
                parameter.grad = value
            optimizers[name].step()
        polyak(twin.target_critic, twin.critic, cfg.tau)
        metrics = cql.update(agent, batch, noise, cfg)
        for name, key in (("td_loss", "td"), ("actor_loss", "actor"), ("conservative_gap", "gap")):
            torch.testing.assert_close(metrics[name], losses[key].detach(), rtol=1e-5, atol=1e-5)
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_mode_as_target_action_needs_no_noise(batch, spec):
    cfg = cql.Config(hidden=(8,), num_actions=2, target_action="mode")
    agent = cql.Agent(cfg, spec, torch.Generator().manual_seed(0))
    noise = cql.draw_noise(cfg, batch, torch.Generator().manual_seed(0))
    metrics = cql.update(agent, batch, noise, cfg)
    fresh = cql.Agent(cfg, spec, torch.Generator().manual_seed(0))
    with torch.no_grad():
        next_q = fresh.target_critic(batch.next_obs, fresh.actor(batch.next_obs).mode).amin(0)
        errors = fresh.critic(batch.obs, batch.action) - (batch.reward + batch.discount * next_q)
    torch.testing.assert_close(metrics["td_loss"], errors.square().mean(1).sum())


def test_conservative_gap_by_hand():
    q_all = torch.tensor([[[1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0]]])  # [2 critics, 1 row, data + 2 samples]
    log_q = torch.tensor([[0.0, 0.0]])
    gap = cql.conservative_gap(q_all, log_q, cql.Config())
    assert gap.tolist() == pytest.approx([math.log(math.exp(2) + math.exp(3)) - 1, math.log(2)])
    plain = cql.conservative_gap(q_all, log_q, cql.Config(importance_sampling=False))
    assert plain[1].item() == pytest.approx(math.log(3))
    clipped = cql.conservative_gap(q_all, log_q, cql.Config(clip_diff_max=0.5))
    assert clipped.tolist() == [0.5, 0.5]


def test_actor_and_critics_have_their_own_layers_and_initialisation(spec):
    cfg = cql.Config(hidden=(8, 8), critic_hidden=(16,), critic_init="orthogonal", out_gain=0.01)
    agent = cql.Agent(cfg, spec, torch.Generator().manual_seed(0))
    assert agent.actor.architecture["hidden"] == [8, 8]
    assert [weight.shape[1:] for weight in agent.critic.weights] == [(5, 16), (16, 1)]
    first = agent.critic.weights[0][0].detach()  # [in, out]
    torch.testing.assert_close(first @ first.T, 2.0 * torch.eye(5))
    assert agent.actor.net.layers[0].bias.any()  # orthogonal would be 0
    same = cql.Agent(cql.Config(hidden=(8, 8)), spec, torch.Generator().manual_seed(0))
    assert [weight.shape[2] for weight in same.critic.weights] == [8, 8, 1]


@pytest.mark.parametrize(("gap", "rises"), [(-100.0, True), (100.0, False)])
def test_the_lagrange_variable_rises_while_the_gap_is_exceeded(gap, rises, batch, spec):
    cfg = cql.Config(hidden=(8,), num_actions=2, target_gap=gap)
    generator = torch.Generator().manual_seed(0)
    agent = cql.Agent(cfg, spec, generator)
    cql.update(agent, batch, cql.draw_noise(cfg, batch, generator), cfg)
    assert (agent.log_lagrange.item() > 0) == rises


def test_the_policy_loss_leaves_the_critics_alone(batch, spec):
    cfg = cql.Config(hidden=(8,), num_actions=2, conservative_weight=0.0)
    generator = torch.Generator().manual_seed(0)
    agent = cql.Agent(cfg, spec, generator)
    noise = cql.draw_noise(cfg, batch, generator)
    cql.update(agent, batch, noise, cfg)
    gradient = [p.grad.clone() for p in agent.critic.parameters()]
    fresh = cql.Agent(cfg, spec, torch.Generator().manual_seed(0))
    target = batch.reward + batch.discount * _next_q(fresh, batch, noise)
    (fresh.critic(batch.obs, batch.action) - target).square().mean(1).sum().backward()
    for ours, expected in zip(gradient, fresh.critic.parameters(), strict=True):
        torch.testing.assert_close(ours, expected.grad, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def _next_q(agent, batch, noise):
    policy = agent.actor(batch.next_obs)
    return agent.target_critic(batch.next_obs, policy.rsample(noise.target.squeeze(1))).amin(0)


def test_prefers_the_better_action_and_bounds_unseen_ones_from_below(bandit, train):
    common = {"hidden": (32, 32), "batch_size": 64, "policy_lr": 5e-3, "critic_lr": 5e-3, "num_actions": 3}
    agent = train(cql, cql.Config(conservative_weight=0.1, **common), bandit, steps=300)
    sac = train(cql, cql.Config(conservative_weight=0.0, **common), bandit, steps=300, name="sac")
    obs = bandit.rows.obs[:200]
    assert agent.actor.act(obs, True).mean().item() == pytest.approx(0.5, abs=0.2)
    unseen = torch.full((200, 1), 0.0)  # no action of the data lies within two deviations; the truth is 0.08
    q, q_sac = agent.critic(obs, unseen).mean(), sac.critic(obs, unseen).mean()
    assert q < 0.08
    assert q < q_sac
