"""What every offline algorithm owes: same seed same numbers, exact resume, precision and compile, errors."""

import dataclasses
import functools
import math

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


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def parameters(agent) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in agent.state_dict().items()}


def assert_same(a, b) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def assert_close(a, b) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)


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
    often = {"steps": 4, "checkpoint_every": 2}
    whole = train(module, cfg, rows(batch), name="whole", **often)
    with pytest.raises(RuntimeError, match="power cut"):
        train(module, cfg, rows(batch, fail_at=3), name="cut", **often)
    resumed = train(module, cfg, rows(batch), name="cut", resume=True, **often)
    assert_same(parameters(whole), parameters(resumed))


@needs_cuda
@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_resumes_on_cuda(name, cuda_graphs, batch, rows, train):
    """Long enough that a graph, captured at the fourth call, is replayed before the cut and after it."""
    module, cfg = SMALL[name]
    on_gpu = batch.map(lambda x: x.cuda())
    options = {"steps": 24, "checkpoint_every": 12, "device": "cuda", "cuda_graphs": cuda_graphs}
    whole = train(module, cfg, rows(on_gpu), name="whole", **options)
    with pytest.raises(RuntimeError, match="power cut"):
        train(module, cfg, rows(on_gpu, fail_at=14), name="cut", **options)
    resumed = train(module, cfg, rows(on_gpu), name="cut", resume=True, **options)
    assert_close(parameters(whole), parameters(resumed))


def updated(
    module, cfg, spec, batch, wrap, num_steps=1
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The metrics of the last of some wrapped updates, and the agent's state after it."""
    generator = torch.Generator(batch.obs.device).manual_seed(0)
    agent = module.Agent(cfg, spec, generator)
    update = wrap(module.update)
    update_actor = wrap(module.update_actor) if module is td3_bc else None
    for _ in range(num_steps):
        metrics = update(agent, batch, module.draw_noise(cfg, batch, generator), cfg)
        if update_actor:
            metrics |= update_actor(agent, batch, cfg)
    return metrics, parameters(agent)


@pytest.mark.parametrize("name", SMALL)
def test_bf16_trains_the_same_parameters(name, batch, spec):
    module, cfg = SMALL[name]

    def bf16(update):
        return accelerate.autocast(update, torch.device("cpu"), torch.bfloat16)

    before = parameters(module.Agent(cfg, spec, torch.Generator().manual_seed(0)))
    plain, after_plain = updated(module, cfg, spec, batch, lambda update: update)
    low, after_low = updated(module, cfg, spec, batch, bf16)
    for key in plain:
        assert low[key].dtype == torch.float32
        torch.testing.assert_close(low[key], plain[key], rtol=0.05, atol=0.05)
    for key in before:  # a parameter whose cast was cached without its gradient would stand still
        moved = (not torch.equal(before[key], x[key]) for x in (after_plain, after_low))
        assert next(moved) == next(moved), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td3_bc", "iql", "cql_lagrange"])
def test_compiled_equals_eager(name, batch, spec):
    """Tracing is what an update can break; generating code for the trace would take a minute each."""
    module, cfg = SMALL[name]
    eager = updated(module, cfg, spec, batch, lambda update: update)
    compiled = updated(module, cfg, spec, batch, functools.partial(torch.compile, backend="aot_eager"))
    for ours, theirs in zip(eager, compiled, strict=True):
        assert_close(ours, theirs)


@needs_cuda
@pytest.mark.parametrize("name", SMALL)
def test_a_cuda_graph_equals_eager(name, batch, spec):
    """Eight updates with fresh noise: three warm up, the fourth is captured, all later ones are replays."""
    module, cfg = SMALL[name]
    on_gpu = batch.map(lambda x: x.cuda())
    eager = updated(module, cfg, spec, on_gpu, lambda update: update, num_steps=8)
    graph = updated(module, cfg, spec, on_gpu, accelerate.CudaGraph, num_steps=8)
    for ours, theirs in zip(eager, graph, strict=True):
        assert_close(ours, theirs)


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
        (bc.Config, {"lr": 0.0}, r"algo\.lr=0\.0: must be finite and > 0"),
        (cql.Config, {"out_gain": -2.0}, r"algo\.out_gain=-2\.0: must be finite and > 0"),
        (cql.Config, {"target_gap": math.nan}, r"algo\.target_gap=nan: must be finite"),
        (cql.Config, {"log_std_offset": -math.inf}, r"algo\.log_std_offset=-inf: must be finite"),
        (cql.Config, {"target_action": "mean"}, r"algo\.target_action='mean'"),
        (cql.Config, {"target_action": "mode", "max_backup": True}, r"algo\.max_backup=True: must be false"),
        (cql.Config, {"critic_hidden": (8, 0)}, r"algo\.critic_hidden=\(8, 0\)"),
        (cql.Config, {"critic_init": "ortogonal"}, "did you mean 'orthogonal'"),
        (cql.Config, {"conservative_weight": math.inf}, r"algo\.conservative_weight=inf"),
        (iql.Config, {"temperature": math.inf}, r"algo\.temperature=inf: must be finite"),
        (td3_bc.Config, {"alpha": math.nan}, r"algo\.alpha=nan: must be finite"),
    ],
)
def test_config_errors_name_field_value_and_range(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_every_config_survives_its_own_values():
    for _, cfg in SMALL.values():
        assert type(cfg)(**dataclasses.asdict(cfg)) == cfg
