"""The GPU benchmark's logic on a CPU, with a model of two layers."""

import sys

import pytest
import torch

pytest.importorskip("trl", minversion="1.16", reason="TRL is not installed; `pip install .[peers]` brings it")

from benchmarks import bench_gpu, bench_trl_grpo  # noqa: E402

TINY = bench_gpu.Sizes(
    trunk={"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1},
    vocabulary=300,
    pairs=2,
    prompt=6,
    response=4,
    prompts=1,
    limit=3,
    batch=8,
)


def test_every_row_of_the_table_with_a_tiny_model():
    rows = bench_gpu.measure(TINY, torch.device("cpu"), torch.float32, 1, peak_flops=1e9)
    assert [row.peer_name for row in rows] == ["generate", *["TRL default"] * 2, *["TRL tuned"] * 2]
    for row in rows:
        assert row.unit == "tokens/s"
        assert row.ratio == pytest.approx(row.ours / row.peer, rel=1e-3)
        assert row.settings["model FLOP utilisation"] > 0


def test_work_in_tokens_and_flops():
    work = bench_gpu.Work(tokens=100, flops=2e9)
    row = work.row("step", "peer", [(0.5, 1.0)], (3.0, 7.0), 1e10)
    assert (row.ours, row.peer, row.ratio) == (200.0, 100.0, 2.0)
    assert row.settings == {
        "model FLOP utilisation": 0.4,
        "the peer's": 0.2,
        "peak MiB": 3,
        "the peer's MiB": 7,
    }


def test_without_cuda_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_gpu"])
    with pytest.raises(SystemExit, match="no CUDA device"):
        bench_gpu.main()


def test_an_unknown_gpu_needs_its_peak():
    assert bench_gpu.peak_flops_of("NVIDIA H200", None) == 989e12
    assert bench_gpu.peak_flops_of("Another", 10.0) == 1e13
    with pytest.raises(ValueError, match="'Another'.*--peak-tflops"):
        bench_gpu.peak_flops_of("Another", None)


def test_a_group_is_what_grpo_draws():
    assert TINY.batch % bench_trl_grpo.GROUP == 0
