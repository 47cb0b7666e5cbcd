"""Saved policies act as before; every actor's modes and samples; errors."""

import json

import numpy as np
import pytest
import torch

from embodied_rl.data.types import Spec
from embodied_rl.models.actors import ACTORS, DeterministicActor, GaussianActor, SquashedGaussianActor
from embodied_rl.models.policy import ActorPolicy, Normalizer

OBS = {"observation": np.linspace(-2, 2, 20, dtype=np.float32).reshape(4, 5)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name: str) -> ActorPolicy:
    spec = Spec(
        env_id="Any-v0",
        obs_keys=("observation",),
        obs_dims=(5,),
        action_low=np.array([-2.0, 0.0], np.float32),
        action_high=np.array([2.0, 1.0], np.float32),
    )
    actor = ACTORS[name](obs_dim=5, action_dim=2, hidden=(16,), generator=generator())
    return ActorPolicy(actor, spec, Normalizer(torch.arange(5.0), torch.full((5,), 2.0)))


@pytest.mark.parametrize("name", ACTORS)
def test_save_and_load_give_the_same_actions(name, tmp_path):
    policy = make(name)
    policy.save(tmp_path / "policy")
    loaded = ActorPolicy.load(tmp_path / "policy")
    for deterministic in (True, False):
        np.testing.assert_array_equal(policy.act(OBS, deterministic), loaded.act(OBS, deterministic))
    assert loaded.spec.to_json() == policy.spec.to_json()


@pytest.mark.parametrize("name", ACTORS)
def test_actions_are_in_environment_units_and_bounds(name):
    policy = make(name)
    for deterministic in (True, False):
        action = policy.act(OBS, deterministic)
        assert action.shape == (4, 2)
        assert (policy.spec.action_low <= action).all()
        assert (action <= policy.spec.action_high).all()


def test_the_normaliser_is_applied():
    policy = make("deterministic")
    normalised = (torch.from_numpy(OBS["observation"]) - torch.arange(5.0)) / 2.0
    expected = policy.actor.act(normalised, True).detach().numpy()
    np.testing.assert_allclose(policy.act(OBS), expected * [2.0, 0.5] + [0.0, 0.5], rtol=1e-6)


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="holds no policy"):
        ActorPolicy.load(tmp_path)
    make("gaussian").save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "actor": "GausianActor"}))
    with pytest.raises(ValueError, match="did you mean 'GaussianActor'"):
        ActorPolicy.load(tmp_path)


def test_gaussian_actor_log_prob_is_that_of_the_torch_distribution():
    actor = GaussianActor(5, 2, (16,), generator=generator())
    obs, action = torch.randn(8, 5, generator=generator(1)), torch.rand(8, 2, generator=generator(2)) * 2 - 1
    actor.log_std.data = torch.tensor([0.3, -9.0])  # the second below the lower bound
    reference = torch.distributions.Normal(actor(obs).mean, torch.tensor([0.3, -5.0]).exp())
    torch.testing.assert_close(-actor.imitation_loss(obs, action), reference.log_prob(action).sum(-1))


def test_squashed_actor_log_prob_is_of_the_given_action():
    actor = SquashedGaussianActor(5, 2, (16,), generator=generator())
    obs, action = (
        torch.randn(8, 5, generator=generator(1)),
        torch.rand(8, 2, generator=generator(2)) * 1.8 - 0.9,
    )
    mean, log_std = actor.net(obs).chunk(2, -1)
    reference = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, (log_std - 1.0).clamp(-20, 2).exp()),
        torch.distributions.TanhTransform(),
    )
    expected = reference.log_prob(action).sum(-1)
    torch.testing.assert_close(-actor.imitation_loss(obs, action), expected, rtol=1e-4, atol=1e-4)


def test_deterministic_imitation_loss_by_hand():
    actor = DeterministicActor(1, 2, (4,), generator=generator())
    for parameter in actor.parameters():
        parameter.data.zero_()
    loss = actor.imitation_loss(torch.zeros(1, 1), torch.tensor([[0.5, -1.0]]))
    assert loss.tolist() == [1.25]
