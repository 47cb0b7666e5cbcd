"""d3rlpy 2.8.1 in its own environment (requirements-d3rlpy.txt): timed rounds on request, or one training.

    d3rlpy_runner.py speed --algo iql --data d.npz      reads "<train|update> <seconds>" lines from stdin
    d3rlpy_runner.py learn --algo iql --data d.npz --updates 50000 --seed 0 --every 25000 --out dir

`learn` writes the policy's weights to `<update>.npz` every so many updates. The .npz of the data holds
`observations [sum(T+1), D]`, `actions, rewards, terminations [sum(T), ...]` and `lengths [E]`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import d3rlpy
import numpy as np
import torch


def build(algo: str, batch_size: int):
    """The configuration that equals `benchmarks.learning_offline.OURS[algo]`."""
    encoder = d3rlpy.models.encoders.VectorEncoderFactory([256, 256, 256] if algo == "cql" else [256, 256])
    common = {"batch_size": batch_size, "actor_encoder_factory": encoder, "critic_encoder_factory": encoder}
    if algo == "iql":
        return d3rlpy.algos.IQLConfig(value_encoder_factory=encoder, **common).create()
    if algo == "cql":  # the fixed weight of d3rlpy's own reproduction script, not its Lagrange default
        return d3rlpy.algos.CQLConfig(conservative_weight=5.0, alpha_learning_rate=0.0, **common).create()
    return d3rlpy.algos.TD3PlusBCConfig(**common).create()


def load(path: str) -> d3rlpy.dataset.MDPDataset:
    """Episodes as d3rlpy expects them: T rows each, and one more to keep the successor of a truncation.

    d3rlpy bootstraps the last row of an episode only as a successor, so the final observation of a truncated
    episode is appended with an unused action and reward; a terminated episode needs none.
    """
    data = np.load(path)
    observations, actions, rewards, terminals, timeouts = [], [], [], [], []
    start = 0
    for episode, length in enumerate(data["lengths"]):
        row, rows = (
            start + episode,
            slice(start, start + length),
        )
        terminated = bool(data["terminations"][start + length - 1])
        pad = 0 if terminated else 1
        observations.append(data["observations"][row : row + length + pad])
        actions.append(np.pad(data["actions"][rows], ((0, pad), (0, 0))))
        rewards.append(np.pad(data["rewards"][rows], (0, pad)))
        end = np.zeros(length + pad, np.float32)
        end[-1] = 1.0
        terminals.append(end * terminated)
        timeouts.append(end * (not terminated))
        start += length
    return d3rlpy.dataset.MDPDataset(
        np.concatenate(observations).astype(np.float32),
        np.concatenate(actions).astype(np.float32),
        np.concatenate(rewards).astype(np.float32),
        np.concatenate(terminals),
        np.concatenate(timeouts),
        action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )


def speed(args: argparse.Namespace) -> None:
    dataset = load(args.data)
    algo = build(args.algo, args.batch)
    algo.build_with_dataset(dataset)
    fixed = dataset.sample_transition_batch(args.batch)
    for _ in range(3):
        algo.update(fixed)
    print(json.dumps({"ready": d3rlpy.__version__}), flush=True)
    for line in sys.stdin:
        mode, seconds = line.split()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < float(seconds):
            algo.update(fixed if mode == "update" else dataset.sample_transition_batch(args.batch))
            count += 1
        print(json.dumps({"rate": count / (time.perf_counter() - start)}), flush=True)


def learn(args: argparse.Namespace) -> None:
    dataset = load(args.data)
    algo = build(args.algo, args.batch)
    algo.build_with_dataset(dataset)
    if args.algo == "iql":  # as in the paper, and in d3rlpy's reproduction script
        optimizer = algo.impl.modules.actor_optim.optim
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.updates)
    start = time.perf_counter()
    for step in range(1, args.updates + 1):
        losses = algo.update(dataset.sample_transition_batch(args.batch))
        if args.algo == "iql":
            schedule.step()
        if step % args.every == 0:
            policy = algo.impl.policy.state_dict()
            np.savez(f"{args.out}/{step}.npz", **{name: value.numpy() for name, value in policy.items()})
        if step % 1000 == 0:
            rate = step / (time.perf_counter() - start)
            print(json.dumps({"step": step, "rate": round(rate, 1), **losses}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["speed", "learn"])
    parser.add_argument("--algo", choices=["iql", "cql", "td3_bc"], required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=50_000)
    parser.add_argument("--every", type=int, default=50_000)
    parser.add_argument("--out", default=".")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    d3rlpy.seed(args.seed)
    {"speed": speed, "learn": learn}[args.command](args)


if __name__ == "__main__":
    main()
