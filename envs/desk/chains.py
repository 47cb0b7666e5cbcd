"""Long-horizon evaluation: chains of tasks, each begun where the last one ended, as in CALVIN.

A chain starts from a random situation; its tasks are drawn so that each one's needs are met by what the
earlier ones bring about, and no two are of one family. Reported are the share of chains that got past each
position, and their mean length (CALVIN's "average successful sequence length", out of 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.desk.episodes import DeskOptions, Episodes
from envs.desk.scene import DESK, Scene
from envs.desk.situations import Situation, after, draw_situation
from envs.desk.tasks import CALVIN_TASKS, Task, find_tasks, possible_tasks

CHAIN_LENGTH = 5
MAX_STEPS = 120  # control steps of 0.1 s for each task of a chain
_ATTEMPTS = 1000


class Policy(Protocol):
    """What acts; `embodied_rl.models.policy` has the project's own protocol, which this is part of."""

    def reset(self, batch: int) -> None:
        """Start `batch` episodes afresh."""

    def act(self, obs: Mapping[str, NDArray[np.float32]], deterministic: bool = True) -> NDArray[np.float32]:
        """Return actions `[N, 7]`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One task of a chain, and the block that it is about (of no meaning for tasks without one)."""

    task: int  # index into the tasks that the chain was drawn from
    target: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """Where it starts and what is asked for, one after the other."""

    start: Situation
    links: tuple[Link, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainReport:
    """How far a policy got."""

    lengths: NDArray[np.int64]  # [number of chains] tasks done in a row
    success: tuple[float, ...]  # share of chains with at least 1, 2, ... tasks done

    @property
    def mean_length(self) -> float:
        """Mean number of tasks done in a row."""
        return float(self.lengths.mean())


def draw_chain(
    rng: np.random.Generator,
    *,
    tasks: Sequence[str] = CALVIN_TASKS,
    scene: Scene = DESK,
    length: int = CHAIN_LENGTH,
) -> Chain:
    """Draw a feasible chain. Raises ValueError where the tasks allow none of that length."""
    table = find_tasks(tasks, scene)
    for _ in range(_ATTEMPTS):
        start = situation = draw_situation(rng, len(scene.blocks), {}, 0)
        links: list[Link] = []
        while len(links) < length:
            used = {_family(table[link.task]) for link in links}
            possible = [
                pair
                for pair in possible_tasks(table, scene.colors, situation)
                if _family(table[pair[0]]) not in used
            ]
            if not possible:
                break
            # First the task, then the block: tasks about any block are not to be drawn more often.
            task = int(rng.choice(sorted({number for number, _ in possible})))
            target = int(rng.choice([block for number, block in possible if number == task]))
            links.append(Link(task=task, target=target))
            situation = after(situation, table[task].effects, target)
        if len(links) == length:
            return Chain(start=start, links=tuple(links))
    raise ValueError(f"tasks={list(tasks)}, length={length}: no feasible chain found in {_ATTEMPTS} attempts")


def _family(task: Task) -> object:
    """Tasks that undo or repeat each other share it."""
    return task.success


def evaluate_chains(
    policy: Policy,
    num_chains: int,
    *,
    tasks: Sequence[str] = CALVIN_TASKS,
    scene: Scene = DESK,
    num_envs: int = 64,
    max_steps: int = MAX_STEPS,
    seed: int = 0,
    num_threads: int | None = None,
) -> ChainReport:
    """Run chains `seed`, `seed + 1`, ... side by side; the same chains whatever `num_envs` is.

    A chain ends with the first task that is not done within `max_steps`. The policy is reset where all
    simulations begin a task at once, so one with a memory should be run with `num_envs=1`.
    """
    if num_chains < 1 or max_steps < 1:
        raise ValueError(f"num_chains={num_chains}, max_steps={max_steps}: each must be at least 1")
    num_envs = min(num_envs, num_chains)
    options = DeskOptions(
        scene=scene, terminate_on_success=False, max_episode_steps=CHAIN_LENGTH * max_steps + 1
    )
    desks = Episodes(num_envs, tasks, options, num_threads)
    lengths = np.zeros(num_chains, np.int64)
    for first in range(0, num_chains, num_envs):
        numbers = np.arange(first, min(first + num_envs, num_chains))
        chains = [
            draw_chain(np.random.default_rng([seed, int(i)]), tasks=tasks, scene=scene) for i in numbers
        ]
        lengths[numbers] = _run(policy, desks, chains, [seed + int(i) for i in numbers], max_steps)
    success = tuple(float((lengths >= k).mean()) for k in range(1, CHAIN_LENGTH + 1))
    return ChainReport(lengths=lengths, success=success)


def _run(
    policy: Policy, desks: Episodes, chains: Sequence[Chain], seeds: Sequence[int], max_steps: int
) -> NDArray[np.int64]:
    """How many links of each chain were done; simulations beyond the last chain stand idle."""
    n = len(chains)
    ids = np.arange(n)
    everyone = np.arange(desks.num_envs)
    desks.seed(everyone, [*seeds, *[0] * (desks.num_envs - n)])
    if n < desks.num_envs:
        desks.begin(everyone[n:])
    obs = desks.begin(ids, [chain.start for chain in chains])
    done, left, running = np.zeros(n, np.int64), np.full(n, max_steps), np.ones(n, np.bool_)
    begins = ids
    while running.any():
        for i in begins:
            link = chains[int(i)].links[int(done[i])]
            obs = desks.assign(int(i), link.task, link.target)
        if len(begins) == desks.num_envs:
            policy.reset(desks.num_envs)
        outcome = desks.step(policy.act(obs, deterministic=True))
        obs = outcome.obs
        left -= 1
        advanced = running & outcome.success[:n]
        done += advanced
        failed = [i for i in outcome.errors if i < n]
        running &= (advanced | (left > 0)) & (done < [len(chain.links) for chain in chains])
        running[failed] = False
        begins = np.flatnonzero(advanced & running)
        left[begins] = max_steps
    return done
