"""SAC against hand-written losses, on points that go to a goal, and resumed; the replay row by row."""

import json

import numpy as np
import pytest
import torch

from embodied_rl.data.types import Batch
from embodied_rl.online import sac
from embodied_rl.online.replay import Mixed, Replay
from embodied_rl.online.rollout import Collector

SMALL = {"hidden": (32, 32), "batch_size": 64, "random_steps": 96, "capacity": 1000}


def begin(world, env):
    here = world(env, horizon=5)
    collector = Collector(here, torch.device("cpu"))
    collector.reset(seed=0)
    return here, collector


def ahead(obs, state, t):
    return torch.full((len(obs), 1), 1.5 if t % 2 else 0.9), state


def test_the_replay_holds_true_successors(world, points):
    """Row by row against what the environment itself has recorded."""
    env = points(3, limit=3)
    here, collector = begin(world, env)
    replay = Replay(here, 100, torch.device("cpu"), gamma=0.9)
    replay.add(collector.collect(ahead))
    rows = replay._rows.map(lambda x: x[:15].view(3, 5, -1))
    for t, step in enumerate(env.transitions):
        successor = np.concatenate([step["goal"], step["observation"]], axis=1)
        kept = ~step["terminated"]  # after a termination nothing is read
        np.testing.assert_allclose(rows.next_obs[kept, t], successor[kept], atol=1e-6)
        np.testing.assert_allclose(rows.reward[:, t, 0], step["reward"], atol=1e-6)
        np.testing.assert_allclose(rows.discount[:, t, 0], 0.9 * kept)
    assert rows.action.abs().max() == 1.0  # clipped, as the environment got it
    assert env.transitions[2]["ended"].all()


def test_a_full_replay_forgets_the_oldest(world, points):
    here, collector = begin(world, points(3))
    replay = Replay(here, 20, torch.device("cpu"), gamma=0.9)
    added = []
    for _ in range(3):
        steps = collector.collect(ahead)
        replay.add(steps)
        added.append(steps.reward.flatten().clone())
    assert replay._rows.reward.sort().values.tolist() == torch.cat(added)[-20:].sort().values.tolist()
    twin = Replay(here, 20, torch.device("cpu"), gamma=0.9)
    twin.load_state_dict(replay.state_dict())
    batches = [r.sample(torch.Generator().manual_seed(1), 8) for r in (replay, twin)]
    assert torch.equal(batches[0].obs, batches[1].obs)


def test_a_replay_smaller_than_a_rollout_is_refused(world, points, train):
    cfg = sac.Config(**{**SMALL, "capacity": 14})
    with pytest.raises(ValueError, match="algo.capacity=14: must be at least 15, the steps of a rollout"):
        train(sac, cfg, world(points(3), horizon=5), steps=1)


@pytest.mark.parametrize(("fraction", "old"), [(0.0, 0), (0.25, 16), (1.0, 64)])
def test_mixed_batches_hold_the_asked_share(world, points, fraction, old):
    here, collector = begin(world, points(3))
    replay = Replay(here, 100, torch.device("cpu"), gamma=0.9)
    replay.add(collector.collect(ahead))

    class Old:
        spec = here.spec

        def sample(self, generator, batch_size):
            return replay.sample(generator, batch_size).map(lambda x: torch.full_like(x, 7.0))

    batch = Mixed(Old(), replay, fraction).sample(torch.Generator().manual_seed(0), 64)
    assert len(batch.reward) == 64
    assert int((batch.reward == 7.0).sum()) == old


def test_losses_by_hand(world, points):
    here, _ = begin(world, points(3))
    cfg = sac.Config(**SMALL, alpha_init=0.2, lr=1e-9)
    agent = sac.Agent(cfg, here.spec, torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    batch = Batch(
        obs=torch.randn(64, 3, generator=g),
        action=torch.rand(64, 1, generator=g) * 2 - 1,
        reward=torch.randn(64, generator=g),
        next_obs=torch.randn(64, 3, generator=g),
        discount=0.9 * (torch.rand(64, generator=g) > 0.3),
    )
    noise = sac.draw_noise(batch, g)
    found = sac.update(agent, batch, noise, cfg)

    def sampled(obs, eps):
        normal = agent.actor(obs).normal
        latent = normal.mean + normal.log_std.exp() * eps
        log_prob = torch.distributions.Normal(normal.mean, normal.log_std.exp()).log_prob(latent)
        action = torch.tanh(latent)
        return action, (log_prob - torch.log(1 - action**2)).sum(-1)

    action, log_prob = sampled(batch.obs, noise[0])
    next_action, next_log_prob = sampled(batch.next_obs, noise[1])
    next_q = agent.target_critic(batch.next_obs, next_action).min(0).values
    target = batch.reward + batch.discount * (next_q - 0.2 * next_log_prob)
    q_loss = sum(((q - target) ** 2).mean() for q in agent.critic(batch.obs, batch.action))
    actor_loss = (0.2 * log_prob - agent.critic(batch.obs, action).min(0).values).mean()
    torch.testing.assert_close(found["q_loss"], q_loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["actor_loss"], actor_loss.detach(), rtol=1e-4, atol=1e-5)
    assert agent.log_alpha.grad.item() == pytest.approx(-(log_prob.mean().item() - 1), rel=1e-3)


def test_the_entropy_goes_to_its_target(world, points, train):
    """More entropy than asked for lowers alpha, less raises it; the default target is minus the actions."""
    options = {**SMALL, "random_steps": 1, "alpha_init": 0.1}
    moved = {}
    for target in (None, -1.0, 50.0, -50.0):
        agent = train(
            sac, sac.Config(**options, target_entropy=target), world(points()), steps=2, name=f"{target}"
        )
        moved[target] = agent.log_alpha.item() - np.log(0.1)
    assert moved[None] == moved[-1.0]
    assert moved[-50.0] < 0.0 < moved[50.0]


def test_a_fixed_alpha_stays(world, points, train):
    cfg = sac.Config(**{**SMALL, "random_steps": 1}, alpha=0.2)
    agent = train(sac, cfg, world(points()), steps=2)
    assert agent.log_alpha.exp().item() == pytest.approx(0.2)
    assert agent.log_alpha.grad is None


def test_fields_of_the_critic_alone_are_refused(world, points, train):
    here = world(points(), obs_keys=("observation",), critic_keys=("goal",))
    with pytest.raises(
        ValueError, match=r"rollout.critic_keys=\('goal',\): must be empty: SAC's critic reads"
    ):
        train(sac, sac.Config(**SMALL), here, steps=1)


def test_learns_to_reach_the_goal(world, points, train, tmp_path):
    cfg = sac.Config(**{**SMALL, "lr": 3e-3, "alpha_init": 0.1, "gamma": 0.9})
    train(sac, cfg, world(points(8), horizon=6), steps=10)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["rollout/success"] < 0.8
    assert np.mean([row["rollout/success"] for row in rows[-2:]]) > 0.9


def test_two_and_two_steps_equal_four(world, points, train):
    cfg = sac.Config(**{**SMALL, "hidden": (8,), "random_steps": 40})
    often = {"checkpoint_every": 2}
    whole = train(sac, cfg, world(points(), horizon=5), steps=4, name="whole", **often)
    with pytest.raises(RuntimeError, match="power cut"):
        train(sac, cfg, world(points(fail_at=2 * 5 + 3), horizon=5), steps=4, name="cut", **often)
    resumed = train(sac, cfg, world(points(), horizon=5), steps=4, name="cut", resume=True, **often)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "algo.lr=-1.0"),
        ({"capacity": 0}, "algo.capacity=0"),
        ({"tau": 0.0}, "algo.tau=0.0"),
        ({"alpha": 0.0}, "algo.alpha=0.0: must be finite and > 0, or null"),
        (
            {"alpha": 0.2, "alpha_init": 0.5},
            "algo.alpha_init=0.5: must be 1.0 without an alpha that is learnt",
        ),
        ({"alpha": 0.2, "target_entropy": -3.0}, "algo.target_entropy=-3.0: must be None without"),
        ({"target_entropy": float("nan")}, "algo.target_entropy=nan: must be finite, or null"),
    ],
)
def test_what_cannot_train_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sac.Config(**options)
