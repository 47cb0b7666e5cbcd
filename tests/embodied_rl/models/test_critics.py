"""Stacked critics against separate networks, first-layer split, frozen weights, Polyak averaging."""

import pytest
import torch
from torch import nn

from embodied_rl.models.critics import TwinCritic, ValueNet, polyak, target_copy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def separate(critic: TwinCritic, index: int) -> nn.Sequential:
    """One member of the stack as an ordinary network with its own parameters."""
    layers: list[nn.Module] = []
    for weight, bias in zip(critic.weights, critic.biases, strict=True):
        layer = nn.Linear(*weight.shape[1:])
        layer.weight.data, layer.bias.data = weight.data[index].T.clone(), bias.data[index, 0].clone()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_equals_separate_networks_in_values_and_gradients():
    critic = TwinCritic(5, 2, (32, 16), generator=generator())
    members = [separate(critic, i) for i in range(2)]
    obs, action = torch.randn(8, 5, generator=generator(1)), torch.randn(8, 2, generator=generator(2))
    theirs = torch.stack([member(torch.cat([obs, action], -1)).squeeze(-1) for member in members])
    ours = critic(obs, action)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for layer, (weight, bias) in enumerate(zip(critic.weights, critic.biases, strict=True)):
        for i, member in enumerate(members):
            torch.testing.assert_close(weight.grad[i], member[2 * layer].weight.grad.T, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(bias.grad[i, 0], member[2 * layer].bias.grad, rtol=1e-5, atol=1e-6)


def test_several_actions_per_state_equal_one_at_a_time():
    critic = TwinCritic(5, 2, (32, 16), generator=generator())
    obs = torch.randn(8, 5, generator=generator(1))
    actions = torch.randn(8, 7, 2, generator=generator(2))
    together = critic(obs, actions)
    assert together.shape == (2, 8, 7)
    for j in range(7):
        torch.testing.assert_close(together[..., j], critic(obs, actions[:, j]), rtol=1e-5, atol=1e-6)


def test_frozen_passes_the_gradient_to_the_action_only():
    critic = TwinCritic(5, 2, (16,), generator=generator())
    obs = torch.randn(8, 5, generator=generator(1))
    action = torch.randn(8, 2, generator=generator(2)).requires_grad_()
    critic(obs, action, frozen=True).sum().backward()
    frozen_gradient, action.grad = action.grad, None
    assert all(p.grad is None for p in critic.parameters())
    critic(obs, action).sum().backward()
    torch.testing.assert_close(frozen_gradient, action.grad)
    assert all(p.grad is not None for p in critic.parameters())


def test_members_differ_and_the_seed_decides():
    first, again = (TwinCritic(5, 2, (16,), num=3, generator=generator(4)) for _ in range(2))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.weights[0][0], first.weights[0][1])


def test_value_net_drops_the_last_axis():
    assert ValueNet(5, (16,), generator=generator())(torch.zeros(3, 4, 5)).shape == (3, 4)


@pytest.mark.parametrize("tau", [0.0, 0.005, 1.0])
def test_polyak_is_a_weighted_mean(tau):
    source, target = ValueNet(3, (4,), generator=generator()), ValueNet(3, (4,), generator=generator(1))
    expected = [
        (1 - tau) * t + tau * s for t, s in zip(target.parameters(), source.parameters(), strict=True)
    ]
    polyak(target, source, tau)
    for ours, theirs in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_target_copy_is_equal_apart_and_without_gradients():
    source = ValueNet(3, (4,), generator=generator())
    target = target_copy(source)
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
        assert not b.requires_grad
