"""From the same rollout Stable-Baselines3's PPO and ours get the same advantages and take the same steps."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch

from embodied_rl.online import ppo
from embodied_rl.online.rollout import Steps
from rl_core import ppo as core
from rl_core.distributions import DiagonalGaussian

sb3 = pytest.importorskip("stable_baselines3")
vec_env = pytest.importorskip("stable_baselines3.common.vec_env")

NUM_ENVS, HORIZON, LIMIT = 3, 32, 10


class Recorded(vec_env.VecEnvWrapper):
    """Keeps what the environment returned, before SB3 adds the value of a truncated end to the reward."""

    def reset(self):
        self.steps = []
        return self.venv.reset()

    def step_wait(self):
        obs, reward, done, infos = self.venv.step_wait()
        self.steps.append((obs, reward.copy(), done, infos))
        return obs, reward, done, infos


class Networks:
    """SB3's networks in the place of our agent."""

    def __init__(self, policy) -> None:
        self.policy, self.obs_dim, self.critic_state = policy, 3, torch.zeros(NUM_ENVS, 0)
        self.obs_stats = torch.nn.Identity()
        self.critic = self

    def actor(self, obs):
        mean = self.policy.get_distribution(obs).distribution.mean
        return DiagonalGaussian(mean, self.policy.log_std)

    def value(self, obs):
        return self.policy.predict_values(obs.flatten(0, -2)).view(obs.shape[:-1])

    def after(self, obs, state):
        return self.value(obs)

    def __call__(self, obs, state, first):
        return self.value(obs), torch.zeros(*obs.shape[:-1], 0)


def recorded_rollout(model) -> Steps:
    """One rollout of SB3 in our arrays, from the environment's own words."""
    _, callback = model._setup_learn(NUM_ENVS * HORIZON)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=HORIZON)
    buffer, log = model.rollout_buffer, model.env.steps
    ends = [(env, t) for t, step in enumerate(log) for env in range(NUM_ENVS) if step[2][env]]
    ended = torch.tensor(np.array([step[2] for step in log])).T
    return Steps(
        obs=torch.tensor(buffer.observations).transpose(0, 1),
        action=torch.tensor(buffer.actions).transpose(0, 1),
        reward=torch.tensor(np.array([step[1] for step in log])).T,
        terminated=torch.zeros_like(ended),
        truncated=ended,
        first=torch.tensor(buffer.episode_starts).T.bool(),
        state=torch.zeros(NUM_ENVS, 0),
        next_obs=torch.tensor(log[-1][0]),
        cut=torch.tensor(ends),
        cut_obs=torch.tensor(np.array([log[t][3][env]["terminal_observation"] for env, t in ends])),
    )


def test_advantages_and_updates_equal_those_of_sb3():
    env = Recorded(vec_env.DummyVecEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=LIMIT)] * NUM_ENVS))
    model = sb3.PPO(
        "MlpPolicy",
        env,
        n_steps=HORIZON,
        batch_size=NUM_ENVS * HORIZON,  # one minibatch: SB3 normalises advantages in each
        n_epochs=3,
        gamma=0.9,
        gae_lambda=0.8,
        ent_coef=0.01,
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": [16, 16], "ortho_init": False},
    )
    steps = recorded_rollout(model)
    assert len(steps.cut) == 9
    networks = Networks(copy.deepcopy(model.policy))
    cfg = ppo.Config(gamma=0.9, lam=0.8, normalize_returns=False)
    ours = ppo.to_rollout(networks, steps, cfg)
    buffer = model.rollout_buffer
    for name, theirs in (
        ("advantage", buffer.advantages),
        ("returns", buffer.returns),
        ("value", buffer.values),
        ("log_prob", buffer.log_probs),
    ):
        np.testing.assert_allclose(getattr(ours, name), theirs.T.flatten(), rtol=1e-5, atol=1e-5)

    model.train()
    update = core.Config(epochs=3, minibatch_size=NUM_ENVS * HORIZON, value_coef=1.0, entropy_coef=0.01)
    optimizer = torch.optim.Adam(networks.policy.parameters(), lr=3e-4, eps=1e-5)  # as SB3's
    generator = torch.Generator().manual_seed(0)
    core.ppo_update(lambda rows: ppo.evaluate(networks, rows), optimizer, ours, update, generator)
    for (name, mine), theirs in zip(
        networks.policy.named_parameters(), model.policy.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5, msg=name)
