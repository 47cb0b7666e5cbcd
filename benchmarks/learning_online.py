"""Does ours learn what SB3's PPO learns? Gymnasium's MuJoCo tasks, both with SB3 Zoo's numbers for one task.

python -m benchmarks.learning_online --steps 1000000 --out runs/online-cells

A cell (task, library, seed) that is there already is kept, so a stopped comparison goes on; one core needs
about an hour for a million steps of ours and of SB3's together.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks import record
from embodied_rl.data.types import as_fields
from embodied_rl.eval import rollout, statistics
from embodied_rl.models.policy import ActorPolicy
from embodied_rl.online import ppo
from embodied_rl.online.rollout import Config, open_world
from envs.config import Config as EnvConfig
from envs.suites import make_vec
from rl_core import ppo as core
from rl_core import run as runs

TASKS = ("HalfCheetah-v5", "Hopper-v5")
NUM_ENVS, HORIZON = 4, 512
UPDATE = core.Config(
    epochs=10, minibatch_size=64, value_coef=1.0
)  # ours halves the squared error, SB3 does not
HIDDEN, LR = (64, 64), 3e-4
EPISODES, EVAL_SEED = 20, 1_000_000


def ours(task: str, seed: int, steps: int) -> ActorPolicy:
    """Train ours; the policy after `steps` environment steps."""
    cfg = ppo.Config(hidden=HIDDEN, lr=LR, ppo=UPDATE)
    rollouts = Config(num_envs=NUM_ENVS, horizon=HORIZON)
    with tempfile.TemporaryDirectory() as folder:
        settings = runs.Config(
            dir=str(Path(folder) / "run"),
            seed=seed,
            steps=max(1, steps // (NUM_ENVS * HORIZON)),
            device="cpu",
            tensorboard=False,
            checkpoint_every=100,
        )
        with open_world(EnvConfig(id=task), rollouts) as world, runs.Run(settings, config=cfg) as run:
            agent = ppo.train(cfg, world, run, lambda agent: {})
    return ActorPolicy(agent.actor, world.spec, agent.normalizer())


class Theirs:
    """SB3's model and the statistics of its observations as a policy."""

    def __init__(self, model: PPO, statistics_: VecNormalize) -> None:
        self._model, self._statistics = model, statistics_

    def reset(self, batch: int) -> None:
        """Nothing to forget."""

    def act(self, obs: Any, deterministic: bool = True) -> np.ndarray:
        """Actions `[N, A]`."""
        normal = self._statistics.normalize_obs(as_fields(obs)["observation"])
        return self._model.predict(normal, deterministic=deterministic)[0]


def sb3(task: str, seed: int, steps: int) -> Theirs:
    """Train SB3's PPO as its documentation does, with VecNormalize."""
    env = VecNormalize(make_vec_env(task, NUM_ENVS, seed=seed), gamma=0.99)
    arch = {"net_arch": list(HIDDEN), "activation_fn": torch.nn.ReLU}
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=HORIZON,
        batch_size=UPDATE.minibatch_size,
        n_epochs=UPDATE.epochs,
        learning_rate=LR,
        seed=seed,
        device="cpu",
        policy_kwargs=arch,
    )
    model.learn(steps)
    return Theirs(model, env)


LIBRARIES = {"ours": ours, "sb3": sb3}


def score(policy: Any, task: str) -> float:
    """Mean return of new episodes with the mean action."""
    env = make_vec(task, EPISODES)
    found = rollout.evaluate(policy, env, episodes=EPISODES, seed=EVAL_SEED)
    env.close()
    return float(found.returns.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for task in args.tasks:
        for seed in args.seeds:
            for library, train in LIBRARIES.items():
                cell = args.out / f"{task}-{library}-{seed}-{args.steps}.json"
                if not cell.exists():
                    cell.write_text(json.dumps(score(train(task, seed, args.steps), task)))
                found[task, library].append(json.loads(cell.read_text()))
    record.write_scores("learning_online", [_row(*key, found, args.steps) for key in found])


def _row(task: str, library: str, found: dict[tuple[str, str], list[float]], steps: int) -> dict[str, Any]:
    intervals = {key: statistics.across_seeds(scores).mean for key, scores in found.items()}
    own, both = intervals[task, library], [intervals[task, name] for name in LIBRARIES]
    verdict = ""
    if all(interval.low is not None for interval in both):
        verdict = "intervals overlap" if statistics.overlap(*both) else "intervals do not overlap"
    return {
        "algorithm": f"ppo on {task}, return",
        "library": library,
        "scores": [round(value, 1) for value in found[task, library]],
        "mean": own.value,
        "low": own.low,
        "high": own.high,
        "verdict": verdict,
        "settings": {"steps": steps, "num_envs": NUM_ENVS, "horizon": HORIZON, "episodes": EPISODES},
    }


if __name__ == "__main__":
    main()
