"""PPO on points that go to a goal: learning, bootstraps by loops, memory, the privileged critic, resume."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from embodied_rl.models.policy import ActorPolicy
from embodied_rl.online import ppo, sac
from embodied_rl.online.rollout import Collector
from rl_core import ppo as core

SMALL = {"hidden": (32, 32), "lr": 3e-3, "log_std_init": -0.5}
MEMORY = {"memory": "gru", "memory_size": 16, "ppo": core.Config(epochs=5, minibatch_size=4)}


def config(**options) -> ppo.Config:
    return ppo.Config(**{**SMALL, "ppo": core.Config(epochs=5, minibatch_size=64), **options})


def successes(tmp_path, name="run") -> list[float]:
    rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    return [row["rollout/success"] for row in rows]


def begin(cfg: ppo.Config, world) -> tuple[ppo.Agent, Collector]:
    privileged = world.critic_spec.obs_dim - world.spec.obs_dim
    rng = torch.Generator().manual_seed(0)
    agent = ppo.Agent(cfg, world.spec, world.env.num_envs, rng, privileged=privileged)
    collector = Collector(world, torch.device("cpu"), state_dim=agent.actor.state_dim)
    collector.reset(seed=0)
    return agent, collector


def test_learns_to_reach_the_goal(world, points, train, tmp_path):
    train(ppo, config(lr_schedule="adaptive"), world(points(16), horizon=18), steps=18)
    curve = successes(tmp_path)
    assert curve[0] < 0.8
    assert np.mean(curve[-3:]) > 0.95


def test_memory_solves_what_the_present_does_not_show(world, points, train):
    """The goal is seen in the first step only, and being there at the end needs it in every step."""
    cfg = config(**MEMORY, lr=5e-3)
    agent = train(ppo, cfg, world(points(16, limit=4), obs_keys=("observation",), horizon=8), steps=40)
    task = points(64, limit=4)
    policy = ActorPolicy(agent.actor, world(task, obs_keys=("observation",)).spec, agent.normalizer())
    obs, _ = task.reset(seed=7)
    policy.reset(64)
    for _ in range(3):
        obs, *_ = task.step(policy.act(obs))
    assert np.mean(np.abs(obs["observation"][:, 0] - obs["goal"][:, 0]) < 0.3) > 0.9


@pytest.mark.parametrize("memory", [{}, MEMORY, {**MEMORY, "memory": "lstm"}])
def test_advantages_bootstrap_from_true_successors(world, points, memory):
    """By loops over episodes: the last observation counts at a truncation, nothing after a termination."""
    cfg = config(gamma=0.9, lam=0.8, normalize_returns=False, log_std_init=0.5, **memory)
    here = world(points(5, limit=4), horizon=11)
    agent, collector = begin(cfg, here)
    for _ in range(2):  # in the second rollout episodes go on from the first
        start = len(here.env.transitions)
        state = agent.critic_state.clone()
        steps = ppo.collect(agent, collector, torch.Generator().manual_seed(1))
        found = ppo.to_rollout(agent, steps, cfg)
    assert steps.terminated.any()
    assert len(steps.cut) > 0
    truth = here.env.transitions[start:]
    for env in range(5):
        expected = _loop(agent, cfg, steps, truth, env, state[env : env + 1])
        torch.testing.assert_close(found.advantage.view(5, 11)[env], expected, rtol=1e-4, atol=1e-5)


def _loop(agent, cfg, steps, truth, env, state):
    deltas, cuts = [], []
    with torch.no_grad():
        for t, step in enumerate(truth):
            if steps.first[env, t]:
                state = torch.zeros_like(state)
            value, after = _value(agent, steps.obs[env, t][None], state)
            true_next = np.concatenate([step["goal"][env], step["observation"][env]])
            next_value, _ = _value(agent, torch.from_numpy(true_next)[None], after)
            bootstrap = 0.0 if step["terminated"][env] else next_value
            deltas.append(float(step["reward"][env]) + cfg.gamma * bootstrap - value)
            cuts.append(step["ended"][env])
            state = after
    advantage, result = 0.0, []
    for delta, ended in zip(reversed(deltas), reversed(cuts), strict=True):
        advantage = delta + (0.0 if ended else cfg.gamma * cfg.lam * advantage)
        result.append(float(advantage))
    return torch.tensor(result[::-1])


def _value(agent, obs, state):
    value, states = agent.critic(agent.obs_stats(obs)[None], state, torch.zeros(1, 1, dtype=torch.bool))
    return value[0, 0], states[:, 0]


def test_a_time_limit_does_not_lower_the_value(world, points, train):
    """Where every step earns 1 the value must be 1 / (1 - gamma) in spite of the limit of 6 steps."""

    class Paid(points):
        def step(self, actions):
            obs, reward, *rest = super().step(0.0 * actions)
            return obs, np.ones_like(reward), *rest

    cfg = config(gamma=0.8, lam=0.9, normalize_returns=False)
    agent = train(ppo, cfg, world(Paid()), steps=60)
    values = agent.critic.value(agent.obs_stats(torch.tensor([[0.8, 0.0, 0.8], [0.8, 0.0, 0.0]])))
    assert values.tolist() == pytest.approx([5.0, 5.0], rel=0.05)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_memory_forgets_where_an_episode_begins(kind):
    memory = ppo.Memory(kind, 3, 4, generator=torch.Generator().manual_seed(0))
    x, state = torch.randn(2, 6, 3), torch.randn(2, memory.state_dim)
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[0, 3] = True
    states = memory(x, state, first)
    afresh = memory(x[:1, 3:], torch.zeros(1, memory.state_dim), first[:1, :3] & False)
    torch.testing.assert_close(states[:1, 3:], afresh)
    assert not torch.allclose(
        states[1:, 3:], memory(x[1:, 3:], torch.zeros(1, memory.state_dim), first[1:, 3:])
    )
    reference = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](3, 4, batch_first=True)
    reference.load_state_dict({f"{k}_l0": v for k, v in memory.cell.state_dict().items()})
    begin_ = (
        state[:, :4][None] if kind == "gru" else tuple(s[None].contiguous() for s in state.split(4, dim=1))
    )
    torch.testing.assert_close(states[1, :, :4], reference(x, begin_)[0][1])


def test_rollouts_reset_the_memory_and_repeat_the_log_probabilities(world, points):
    """The memory that acts and the one that learns go through the same states."""
    cfg = config(**MEMORY)
    agent, collector = begin(cfg, world(points(5, limit=4), horizon=9))
    for seed in range(2):
        noise = torch.randn(collector.noise_shape, generator=torch.Generator().manual_seed(seed))
        steps = ppo.collect(agent, collector, torch.Generator().manual_seed(seed))
        rollout = ppo.to_rollout(agent, steps, cfg)
        std = agent.actor.log_std.exp()
        policy = agent.actor(agent.obs_stats(steps.obs), steps.state, steps.first)
        torch.testing.assert_close(policy.mean + std * noise.transpose(0, 1), steps.action)
        assert rollout.log_prob.shape == (5, 9)
    assert steps.state.abs().sum() > 0
    assert not steps.first[:, 0].all()


def test_only_the_critic_sees_its_own_fields(world, points):
    here = world(points(4), obs_keys=("observation",), critic_keys=("goal",))
    agent, collector = begin(config(), here)
    steps = ppo.collect(agent, collector, torch.Generator().manual_seed(0))
    rows = ppo.to_rollout(agent, steps, config())
    before = ppo.evaluate(agent, rows)
    rows.inputs["obs"][:, 2] += 1.0  # the goal stands after the policy's two numbers
    after = ppo.evaluate(agent, rows)
    torch.testing.assert_close(before.log_prob, after.log_prob)
    assert not torch.allclose(before.value, after.value)
    assert ActorPolicy(agent.actor, here.spec, agent.normalizer()).act(
        {"observation": np.zeros((3, 2), np.float32)}
    ).shape == (3, 1)


@pytest.mark.parametrize("options", [{}, {**MEMORY, "lr_schedule": "adaptive"}, {"lr_schedule": "linear"}])
def test_two_and_two_steps_equal_four(world, points, train, tmp_path, options):
    cfg, often = config(**options), {"checkpoint_every": 2}
    whole = train(ppo, cfg, world(points()), steps=4, name="whole", **often)
    with pytest.raises(RuntimeError, match="power cut"):
        train(ppo, cfg, world(points(fail_at=2 * 12 + 5)), steps=4, name="cut", **often)
    resumed = train(ppo, cfg, world(points()), steps=4, name="cut", resume=True, **often)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert whole.optimizer.param_groups[0]["lr"] == resumed.optimizer.param_groups[0]["lr"]
    assert successes(tmp_path, "whole") == successes(tmp_path, "cut")


def test_begins_with_the_networks_of_another_run(world, points, train, tmp_path):
    there = train(ppo, config(), world(points(4), horizon=18), steps=2, name="first")
    start = str(tmp_path / "first")
    frozen = config(start_from=start, lr=1e-12)
    here = train(ppo, frozen, world(points(6), horizon=18), steps=1, name="second")
    for (name, ours), theirs in zip(here.actor.named_parameters(), there.actor.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    assert here.obs_stats.count > there.obs_stats.count


@pytest.mark.parametrize(
    ("options", "keys", "difference"),
    [
        ({"hidden": (8,)}, {}, r"algo.hidden is \[32, 32\] there, \[8\] here; algo.critic_hidden is"),
        ({"critic_hidden": (8,)}, {}, r"algo.critic_hidden is \[32, 32\] there, \[8\] here"),
        ({"memory": "lstm", "memory_size": 16}, {}, "algo.memory is none there, lstm of 16 here"),
        (
            {},
            {"obs_keys": ("observation",), "critic_keys": ("goal",)},
            "the policy's observation is 3 there, 2 here",
        ),
        (
            {},
            {"obs_keys": ("goal",)},
            "the policy's observation is 3 there, 1 here; the critic's observation is",
        ),
    ],
)
def test_networks_of_other_sizes_are_told_in_a_line(
    world, points, train, tmp_path, options, keys, difference
):
    train(ppo, config(), world(points()), steps=1, name="first")
    there = {"start_from": str(tmp_path / "first")}
    with pytest.raises(ValueError, match="algo.start_from=.*its networks have other sizes") as error:
        train(ppo, config(**there, **options), world(points(), **keys), steps=1, name="second")
    assert re.search(difference, str(error.value))
    assert "\n" not in str(error.value)


def test_what_holds_no_run_of_ppo_is_named(world, points, train, tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        train(ppo, config(start_from="nowhere"), world(points()), steps=1, name="first")
    train(sac, sac.Config(hidden=(4,), capacity=1000), world(points()), steps=1, name="second")
    with pytest.raises(ValueError, match="algo.start_from=.*: must be a run of algo=ppo"):
        train(ppo, config(start_from=str(tmp_path / "second")), world(points()), steps=1, name="third")


def test_the_same_seed_gives_the_same_networks_and_another_seed_others(world, points, train):
    agents = [
        train(ppo, config(), world(points()), steps=2, name=f"run{i}", seed=seed)
        for i, seed in enumerate([3, 3, 4])
    ]
    flat = [torch.cat([p.flatten() for p in agent.parameters()]) for agent in agents]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])


@pytest.mark.parametrize("memory", [{}, MEMORY])
def test_a_saved_policy_acts_the_same(world, points, train, tmp_path, memory):
    here = world(points())
    agent = train(ppo, config(**memory), here, steps=3)
    policy = ActorPolicy(agent.actor, here.spec, agent.normalizer())
    policy.save(tmp_path / "policy")
    loaded = ActorPolicy.load(tmp_path / "policy")
    obs = {"goal": np.full((4, 1), 50.0, np.float32), "observation": np.ones((4, 2), np.float32)}
    policy.reset(4), loaded.reset(4)
    for _ in range(3):
        np.testing.assert_array_equal(policy.act(obs), loaded.act(obs))
    inside = agent.obs_stats(torch.from_numpy(here.spec.flatten(obs)))
    torch.testing.assert_close(policy.normalizer(torch.from_numpy(here.spec.flatten(obs))), inside)


def test_the_learning_rate_follows_the_kl():
    assert ppo.adapted_lr(3e-4, 0.03, 0.01) == pytest.approx(2e-4)
    assert ppo.adapted_lr(3e-4, 0.001, 0.01) == pytest.approx(4.5e-4)
    assert ppo.adapted_lr(3e-4, 0.012, 0.01) == 3e-4
    assert ppo.adapted_lr(1e-2, 0.0, 0.01) == 1e-2
    assert ppo.adapted_lr(1e-5, 1.0, 0.01) == 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "algo.lr=0.0: must be finite and > 0"),
        ({"gamma": 1.1}, "algo.gamma=1.1: must be in"),
        ({"memory": "gruu"}, "did you mean 'gru'"),
        ({"lr_schedule": "linaer"}, "did you mean 'linear'"),
        (
            {"lr": 1e-6, "lr_schedule": "adaptive"},
            r"algo.lr=1e-06: must be in \[1e-05, 0.01\] with .*adaptive",
        ),
        ({"lr": 0.02, "lr_schedule": "adaptive"}, "algo.lr=0.02: must be in"),
        ({"log_std_init": 5.0}, "algo.log_std_init=5.0"),
        ({"critic_hidden": (0,)}, "algo.critic_hidden"),
    ],
)
def test_what_cannot_train_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ppo.Config(**options)


@pytest.mark.parametrize("options", [{"compile": True}, {"precision": "bfloat16"}])
def test_speed_settings_that_would_be_ignored_are_refused(world, train, options):
    with pytest.raises(ValueError, match="PPO"):
        train(ppo, config(), world(), steps=1, **options)
