"""When to ask a teacher, about which segments, and what is learnt from the answers.

Now and then pairs of segments are chosen from a pool of recent ones, those first that the ensemble disagrees
about (Christiano et al. 2017, section 2.2.4), a teacher compares them, and the ensemble is trained on all
comparisons so far.

Departures: 1) `first_share` of the comparisons is asked in the first rollout and the rest at even intervals
in the first half of the run, where the paper asks ever more slowly. 2) Pairs are random while the ensemble
knows nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from embodied_rl.feedback import clips, reward_model, teachers
from embodied_rl.feedback.judgements import CLIPS, Folder, Judgements
from embodied_rl.feedback.segments import Pool, Segments, cut, disjoint, sample, segment_name
from embodied_rl.online.rollout import Steps, World
from rl_core.config import choice, require
from rl_core.run import Run

FOLDER = "feedback"  # of the run directory
SELECTIONS = ("disagreement", "uniform")


@dataclass(kw_only=True, slots=True)
class Config:
    """How much is asked, about what, of whom."""

    num_comparisons: int = 200
    first_share: float = 0.25  # of them asked in the first iteration, the paper's share
    ask_every: int = 2  # iterations
    ask_until: float = 0.5  # share of the run after which nothing is asked any more
    segment: int = 25  # steps
    per_rollout: int = 100  # segments of each rollout that go into the pool
    pool: int = 1000  # segments kept
    selection: str = "disagreement"  # disagreement | uniform
    candidates: int = 10  # pairs looked at for each question, the paper's ratio; for disagreement
    comparisons: str = ""  # folder of an earlier run's comparisons, to begin with
    teacher: teachers.Config = field(default_factory=teachers.Config)
    reward: reward_model.Config = field(default_factory=reward_model.Config)

    def __post_init__(self) -> None:
        """Check words and ranges."""
        for name in ("num_comparisons", "ask_every", "segment", "per_rollout", "candidates"):
            require(getattr(self, name) >= 1, f"algo.feedback.{name}", getattr(self, name), "at least 1")
        # all pairs are listed to draw from them: 12.5 million of 5000
        require(2 <= self.pool <= 5000, "algo.feedback.pool", self.pool, "in [2, 5000]")
        for name in ("first_share", "ask_until"):
            require(0 < getattr(self, name) <= 1, f"algo.feedback.{name}", getattr(self, name), "in (0, 1]")
        choice("algo.feedback.selection", self.selection, SELECTIONS)

    def due(self, step: int, num_steps: int) -> int:
        """How many comparisons are to be asked by the end of iteration `step`, from 1, of `num_steps`."""
        sessions = int(self.ask_until * (num_steps - 1)) // self.ask_every  # after the first one
        share = min(1.0, (step - 1) // self.ask_every / sessions) if sessions else 1.0
        first = math.ceil(self.first_share * self.num_comparisons)
        return first + round(share * (self.num_comparisons - first))


class Feedback:
    """Asks, keeps what was answered, trains the reward model; `pool` and `judged` go into the checkpoint."""

    def __init__(
        self, cfg: Config, agent: reward_model.Agent, world: World, run: Run, camera: clips.Camera | None
    ) -> None:
        self._cfg, self._agent, self._run, self._camera = cfg, agent, run, camera
        self._horizon = world.horizon
        self.pool, self.judged = Pool(cfg.pool), Judgements(cfg.reward.members, run.device)
        self._folder = Folder(run.dir / FOLDER, world.critic_spec)
        earlier = Folder(Path(cfg.comparisons), world.critic_spec) if cfg.comparisons else None
        self._earlier = earlier.load(cfg.segment) if earlier else None

    def before(self, step: int) -> dict[str, float]:
        """Take a person's answers, and point the camera at what is to be asked about after the rollout.

        Raises ValueError where answers are missing.
        """
        if self._camera is None:
            return {}
        if count := self._due(step):
            self._film(self._camera, 2 * count, step)  # two clips for each question
        asked = self.judged.asked
        if asked is None:
            return {}
        preference, missing = self._folder.answers(asked)
        if missing:
            raise ValueError(
                f"{self._folder.store.path}: {missing} of {len(asked)} comparisons are not judged yet; "
                f"answer with scripts/judge_clips.py run={self._run.dir} judge=<name>, then resume"
            )
        self.judged.asked = None
        return self._learn(asked, preference, step)

    def after(self, steps: Steps, step: int) -> dict[str, float]:
        """Take segments of a rollout into the pool, and ask about them if it is time."""
        count, cfg = self._due(step), self._cfg
        if self._camera is None:
            self.pool.add(sample(steps, cfg.per_rollout, cfg.segment, step, self._run.rng))
        elif count:
            self.pool.add(self._developed(self._camera, steps, step))
        stats = {}
        if self._earlier is not None and not len(self.judged):
            stats = self._learn(*self._earlier, step)
        return self._ask(count, step) if count else stats

    def _due(self, step: int) -> int:
        return max(0, self._cfg.due(step, self._run.cfg.steps) - self.judged.num_asked)

    def _film(self, camera: clips.Camera, count: int, step: int) -> None:
        """Have `count` pieces of the coming rollout filmed, or as many as it holds."""
        length, folder = self._cfg.segment, self._folder.path / CLIPS
        places = disjoint(
            count, length, num_envs=camera.num_envs, horizon=self._horizon, rng=self._run.numpy_rng
        )
        pieces = [
            clips.Piece(env=env, start=start, file=folder / f"{segment_name(step, env, start)}.mp4")
            for env, start in places.tolist()
        ]
        camera.film(pieces, length)

    def _developed(self, camera: clips.Camera, steps: Steps, step: int) -> Segments:
        """What the camera saw whole."""
        places = torch.tensor([[piece.env, piece.start] for piece in camera.whole], dtype=torch.int64)
        return cut(steps, places.view(-1, 2).to(self._run.device), self._cfg.segment, step)

    def _choose(self, count: int) -> Tensor:
        """Pairs to ask about, `[count, 2]` indices into the pool; ValueError where there are too few."""
        cfg, rng, known = self._cfg, self._run.rng, self.judged.known
        if cfg.selection == "uniform" or not len(self.judged):
            pairs = self.pool.pairs(count, rng, known)
        else:
            pairs = self.pool.pairs(cfg.candidates * count, rng, known)
            pairs = pairs[self._agent.disagreement(self.pool.segments[pairs]).argsort(descending=True)]
        if len(pairs) < count:
            raise ValueError(
                f"algo.feedback.segment={cfg.segment}: {len(self.pool)} whole segments make too few pairs "
                f"for {count} questions ({len(known)} were asked before); shorten it, or lower "
                "algo.feedback.num_comparisons, or raise rollout.num_envs or rollout.horizon"
            )
        return pairs[:count]

    def _ask(self, count: int, step: int) -> dict[str, float]:
        pairs = self.pool.segments[self._choose(count)]
        self.judged.num_asked += count
        self._folder.keep(pairs, step)
        if self._cfg.teacher.kind == "person":
            self.judged.asked = pairs
            clips.ask(self._folder, pairs)
            self._run.pause(f"{count} comparisons to be judged, see {self._folder.path / clips.PAGE}")
            return {}
        preference = teachers.judge(pairs, self._cfg.teacher, self._run.rng)
        self._folder.record(pairs, preference, judge=self._cfg.teacher.kind)
        return self._learn(pairs, preference, step)

    def _learn(self, pairs: Segments, preference: Tensor, step: int) -> dict[str, float]:
        """Train on these comparisons and all before."""
        move, cfg, rng = self._run.device, self._cfg.reward, self._run.rng
        self.judged.add(pairs.map(lambda x: x.to(move)), preference.to(move), rng)
        pool = self.pool.segments
        stats = reward_model.fit(self._agent, self.judged, pool, cfg, rng)
        stats |= {
            "agreement": reward_model.agreement(self._agent, pool),
            "comparisons": float(len(self.judged)),
        }
        row = [stats.get(name, math.nan) for name in ("comparisons", "accuracy", "agreement")]
        self.judged.history.append([float(step), *row])
        return stats
