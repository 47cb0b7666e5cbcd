"""What every offline algorithm owes: same seed same numbers, exact resume, precision and compile, errors."""

import dataclasses

import pytest
import torch

from embodied_rl.offline import bc, cql, iql, td3_bc
from rl_core import accelerate

SMALL = {
    "bc": (bc, bc.Config(hidden=(16,), batch_size=8, dropout=0.1)),
    "td3_bc": (td3_bc, td3_bc.Config(hidden=(16,), batch_size=8)),
    "iql": (iql, iql.Config(hidden=(16, 16), batch_size=8, dropout=0.1)),
    "iql_deterministic": (iql, iql.Config(hidden=(16,), batch_size=8, actor="deterministic")),
    "cql": (cql, cql.Config(hidden=(16,), batch_size=8, num_actions=3)),
    "cql_lagrange": (
        cql,
        cql.Config(
            hidden=(16,),
            batch_size=8,
            num_actions=3,
            target_gap=0.8,
            max_backup=True,
            importance_sampling=False,
        ),
    ),
}


def parameters(agent) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in agent.state_dict().items()}


def assert_same(a, b) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_numbers_whatever_the_global_state(name, batch, rows, train):
    module, cfg = SMALL[name]
    torch.manual_seed(1)
    first = train(module, cfg, rows(batch), steps=3, name="a")
    torch.manual_seed(2)
    again = train(module, cfg, rows(batch), steps=3, name="b")
    assert_same(parameters(first), parameters(again))


@pytest.mark.parametrize("name", SMALL)
def test_interrupted_and_resumed_equals_uninterrupted(name, batch, rows, train):
    module, cfg = SMALL[name]
    whole = train(module, cfg, rows(batch), steps=4, name="whole")
    with pytest.raises(RuntimeError, match="power cut"):
        train(module, cfg, rows(batch, fail_at=3), steps=4, name="cut")
    resumed = train(module, cfg, rows(batch), steps=4, name="cut", resume=True)
    assert_same(parameters(whole), parameters(resumed))


def one_step(module, cfg, spec, batch, wrap) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    agent = module.Agent(cfg, spec, generator)
    noise = module.draw_noise(cfg, batch, generator)
    metrics = wrap(module.update)(agent, batch, noise, cfg)
    if module is td3_bc:
        metrics |= wrap(module.update_actor)(agent, batch, cfg)
    return metrics, parameters(agent)


@pytest.mark.parametrize("name", SMALL)
def test_bf16_trains_the_same_parameters(name, batch, spec):
    module, cfg = SMALL[name]

    def bf16(update):
        return accelerate.autocast(update, torch.device("cpu"), torch.bfloat16)

    before = parameters(module.Agent(cfg, spec, torch.Generator().manual_seed(0)))
    plain, after_plain = one_step(module, cfg, spec, batch, lambda update: update)
    low, after_low = one_step(module, cfg, spec, batch, bf16)
    for key in plain:
        assert low[key].dtype == torch.float32
        torch.testing.assert_close(low[key], plain[key], rtol=0.05, atol=0.05)
    for key in before:  # a parameter whose cast was cached without its gradient would stand still
        moved = (not torch.equal(before[key], x[key]) for x in (after_plain, after_low))
        assert next(moved) == next(moved), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td3_bc", "iql", "cql_lagrange"])
def test_compiled_equals_eager(name, batch, spec):
    module, cfg = SMALL[name]
    eager, after_eager = one_step(module, cfg, spec, batch, lambda update: update)
    compiled, after_compiled = one_step(module, cfg, spec, batch, torch.compile)
    for ours, theirs in ((eager, compiled), (after_eager, after_compiled)):
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (iql.Config, {"expectile": 1.0}, r"algo\.expectile=1\.0: must be in \(0, 1\)"),
        (iql.Config, {"actor": "gausian"}, "did you mean 'gaussian'"),
        (iql.Config, {"dropout": -0.1}, r"algo\.dropout"),
        (cql.Config, {"num_actions": 0}, r"algo\.num_actions=0: must be at least 1"),
        (cql.Config, {"clip_diff_min": 1.0, "clip_diff_max": 0.0}, r"algo\.clip_diff_min"),
        (td3_bc.Config, {"policy_delay": 0}, r"algo\.policy_delay"),
        (bc.Config, {"hidden": ()}, r"algo\.hidden"),
        (bc.Config, {"lr": 0.0}, r"algo\.lr=0\.0: must be > 0"),
    ],
)
def test_config_errors_name_field_value_and_range(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_every_config_survives_its_own_values():
    for _, cfg in SMALL.values():
        assert type(cfg)(**dataclasses.asdict(cfg)) == cfg
