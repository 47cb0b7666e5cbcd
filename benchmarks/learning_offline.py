"""Does ours learn what d3rlpy learns? Both train from the same arrays, one evaluator scores both policies.

    python -m benchmarks.learning_offline --algo iql --library ours --seed 0 --data hopper.npz --out cell.json

`--data` is a file as `benchmarks.transitions` describes it, or a Minari dataset id. d3rlpy (--library
d3rlpy) trains in its own environment and hands over its actor's weights; the mode of all three policies is
tanh of a perceptron, which is rebuilt here, so physics, seeds and the evaluation loop are the same for both
libraries. A policy in training may walk well at one update and fall at the next: with `--snapshots=K` the
return is the mean over K policies, evenly spaced over the second half of the training.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.transitions import Transitions, export_minari
from embodied_rl.data.types import Spec
from embodied_rl.eval.rollout import evaluate
from embodied_rl.models.actors import Actor, DeterministicActor
from embodied_rl.models.policy import ActorPolicy, Normalizer
from embodied_rl.offline import cql, iql, td3_bc
from envs.suites import make_vec
from rl_core import run

PEERS = Path(__file__).parent / "peers"
MODULES: dict[str, Any] = {"iql": iql, "cql": cql, "td3_bc": td3_bc}
# What equals `peers.d3rlpy_runner.build`: torch's default initialisation, the same widths, the target at the
# policy's mode (`tests/parity/test_d3rlpy_cql.py` holds CQL's losses equal).
OURS: dict[str, dict[str, Any]] = {"iql": {"init": "torch"}, "cql": {"target_action": "mode"}, "td3_bc": {}}


@dataclass(kw_only=True, slots=True)
class Cell:
    """One training of the comparison."""

    algo: str
    library: str
    seed: int
    updates: int
    batch: int
    precision: str
    snapshots: int

    @property
    def snapshot_every(self) -> int:
        """Updates between two snapshots; the last one is the end of the training."""
        return self.updates // (2 * self.snapshots)


def prepare(data: str, algo: str, directory: Path, scale_reward: bool) -> tuple[Path, Normalizer]:
    """Write the arrays both libraries read: standardised observations for TD3+BC, returns over 1000 for IQL.

    Both are what the papers do on locomotion; doing it to the arrays leaves no library a choice.
    """
    source = Path(data) if data.endswith(".npz") else export_minari(data, directory / "source.npz")
    arrays = dict(np.load(source))
    obs_dim = arrays["observations"].shape[1]
    normalizer = Normalizer.identity(obs_dim)
    if algo == "td3_bc":
        mean, std = arrays["observations"].mean(0), arrays["observations"].std(0) + 1e-3
        normalizer = Normalizer(torch.from_numpy(mean), torch.from_numpy(std))
        arrays["observations"] = (arrays["observations"] - mean) / std
    if scale_reward and algo == "iql":
        starts = np.concatenate([[0], np.cumsum(arrays["lengths"])[:-1]])
        returns = np.add.reduceat(arrays["rewards"], starts)
        arrays["rewards"] = arrays["rewards"] * (1000.0 / (returns.max() - returns.min()))
    prepared = directory / "prepared.npz"
    np.savez(prepared, **{key: arrays[key] for key in arrays})
    return prepared, normalizer


def train_ours(cell: Cell, file: Path, directory: Path) -> tuple[list[Actor], Spec]:
    """Train with this project; return the snapshots of the actor and the task."""
    data, module = Transitions(file), MODULES[cell.algo]
    run_cfg = run.Config(
        dir=str(directory / "run"),
        seed=cell.seed,
        steps=cell.updates,
        device="cpu",
        precision=cell.precision,
        eval_every=cell.snapshot_every,
        checkpoint_every=cell.updates + 1,
        tensorboard=False,
    )
    cfg = module.Config(batch_size=cell.batch, **OURS[cell.algo])
    actors: list[Actor] = []

    def keep(agent: Any) -> dict[str, float]:
        actors.append(copy.deepcopy(agent.actor))
        return {}

    with run.Run(run_cfg, config=cfg) as this_run:
        module.train(cfg, data, this_run, evaluate=keep)
    return actors[-cell.snapshots :], data.spec


def train_d3rlpy(cell: Cell, file: Path, directory: Path, python: str) -> tuple[list[Actor], Spec]:
    """Train with d3rlpy and rebuild the modes of its policy's snapshots."""
    command = [python, str(PEERS / "d3rlpy_runner.py"), "learn", "--algo", cell.algo, "--data", str(file)]
    command += ["--seed", str(cell.seed), "--updates", str(cell.updates), "--batch", str(cell.batch)]
    command += ["--threads", str(torch.get_num_threads()), "--every", str(cell.snapshot_every)]
    subprocess.run([*command, "--out", str(directory)], check=True)
    spec = Transitions(file).spec
    files = [directory / f"{i * cell.snapshot_every}.npz" for i in range(1, 2 * cell.snapshots + 1)]
    return [_actor(dict(np.load(file)), spec) for file in files[cell.snapshots :]], spec


def _actor(weights: dict[str, np.ndarray], spec: Spec) -> Actor:
    # <encoder>.weight, ... then the head that gives the mean; the log_std head plays no part in the mode
    names = [
        name.removesuffix(".weight") for name in weights if name.endswith(".weight") and "logstd" not in name
    ]
    hidden = [len(weights[f"{name}.bias"]) for name in names[:-1]]
    actor = DeterministicActor(spec.obs_dim, spec.action_dim, hidden)
    for layer, name in zip(actor.net.layers, names, strict=True):
        layer.weight.data = torch.from_numpy(weights[f"{name}.weight"])
        layer.bias.data = torch.from_numpy(weights[f"{name}.bias"])
    return actor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algo", choices=list(MODULES), required=True)
    parser.add_argument("--library", choices=["ours", "d3rlpy"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--data", required=True)
    parser.add_argument("--snapshots", type=int, default=1, help="policies scored in the second half")
    parser.add_argument("--env", default="Hopper-v5")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--precision", default="float32", help="of ours: float32 | bfloat16")
    parser.add_argument("--raw-reward", action="store_true", help="do not rescale IQL's rewards")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--d3rlpy-python", default=".venv-d3rlpy/bin/python")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cell = Cell(
        algo=args.algo,
        library=args.library,
        seed=args.seed,
        updates=args.updates,
        batch=args.batch,
        precision=args.precision,
        snapshots=args.snapshots,
    )
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        file, normalizer = prepare(args.data, args.algo, directory, not args.raw_reward)
        start = time.perf_counter()
        if cell.library == "ours":
            actors, spec = train_ours(cell, file, directory)
        else:
            actors, spec = train_d3rlpy(cell, file, directory, args.d3rlpy_python)
        seconds = time.perf_counter() - start
    env = make_vec(args.env, args.episodes)
    returns = [
        evaluate(ActorPolicy(actor, spec, normalizer), env, episodes=args.episodes, seed=1000).returns.mean()
        for actor in actors
    ]
    row = {
        "algo": cell.algo,
        "library": cell.library,
        "seed": cell.seed,
        "updates": cell.updates,
        "batch": cell.batch,
        "precision": cell.precision if cell.library == "ours" else "float32",
        "env": args.env,
        "episodes": args.episodes,
        "snapshots": cell.snapshots,
        "return_mean": float(np.mean(returns)),
        "returns": [float(score) for score in returns],
        "train_seconds": seconds,
    }
    args.out.write_text(json.dumps(row, indent=1))
    print(json.dumps(row))


if __name__ == "__main__":
    main()
