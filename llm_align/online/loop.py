"""One rollout, one loop: what every online algorithm does around its update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from torch import Tensor, nn

from llm_align.feedback.logged import TrainerState
from llm_align.models.parallel import distribute
from llm_align.monitors.completions import CompletionTable
from llm_align.monitors.monitor import Monitor
from llm_align.online.reference import KL, Reference, mean_kl
from llm_align.online.rollout import Samples, Task, join
from rl_core.checkpoint import Stateful
from rl_core.run import Run


class Watching(TypedDict, total=False):
    """Who looks on: `evaluate(agent)` every `run.eval_every` steps, and the monitor."""

    evaluate: Callable[[Any], dict[str, float]] | None
    monitor: Monitor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Experience:
    """Judged samples, what the reference says of them, and their prompts' numbers in the task."""

    samples: Samples
    ref_log_prob: Tensor | None  # [B, L]
    kl_coef: float
    temperature: float
    prompts: Sequence[int] = ()

    def judged(self) -> Experience | None:
        """The part that a reward function judged; None where there is none."""
        kept = (~self.samples.reward.isnan()).nonzero()[:, 0]
        if len(kept) == 0:
            return None
        samples, ref = self.samples.select(kept), self.ref_log_prob
        return Experience(
            samples=samples,
            ref_log_prob=None if ref is None else ref[kept, : samples.log_prob.shape[1]],
            kl_coef=self.kl_coef,
            temperature=self.temperature,
            prompts=self.prompts,
        )


class Loop:
    """Prompts, reference, KL controller, monitor and evaluation of a run: `for step in loop.steps(agent)`.

    The body draws (`draw`), updates and logs. Make it before a checkpoint is restored: the reference is the
    policy as it is now.
    """

    def __init__(self, task: Task, policy: Any, run: Run, kl: KL, **watching: Unpack[Watching]) -> None:
        self.task, self.run, how = task, run, run.cfg.distributed
        self._reference = Reference(policy.to(run.device), how) if kl.coef > 0 else None
        self.policy = distribute(policy.to(run.device), how)
        self._controller, self._prompts = kl.controller(), task.sampler(run.cfg.seed)
        self._evaluate, self._monitor = watching.get("evaluate"), watching.get("monitor") or Monitor()
        self._monitor.check(group_size=task.config.group_size, has_reference=kl.coef > 0)
        self._table = CompletionTable(run.dir, self._monitor.config.completions)
        self._last: Experience | None = None

    def steps(self, agent: nn.Module, **stateful: Stateful) -> Iterator[int]:
        """Yield `run.steps`; after each, steer the KL coefficient, watch what was drawn, evaluate."""
        run, moving = self.run, {"prompts": self._prompts, "kl": self._controller, "monitor": self._monitor}
        for step in run.steps(agent, **moving, **stateful):
            self.task.rewards.state = TrainerState(global_step=step - 1, max_steps=run.cfg.steps)
            yield step
            assert self._last is not None
            self.task.rewards.state = TrainerState(global_step=step, max_steps=run.cfg.steps)
            samples, ref, kl = self._last.samples, self._last.ref_log_prob, None
            if ref is not None:
                kl = mean_kl(samples, ref)
                self._controller.update(float(kl), len(samples))
                run.log(step, {"kl": kl, "kl_coef": self._controller.coef})
            self._monitor.watch(step, samples, run, kl=kl)
            if step % run.cfg.log_every == 0 or run.should_eval(step):
                self._table.write(step, samples, [self._prompt(row) for row in self._last.prompts])
            if self._evaluate is not None and run.should_eval(step):
                run.log(step, self._evaluate(agent), group="eval")

    def _prompt(self, row: int) -> Any:
        return self.task.prompts[row].example.prompt

    def draw(self, enough: Callable[[list[Samples]], bool] = bool) -> Experience:
        """Judged responses to the next prompts, and to more until they are `enough`."""
        drawn: list[Samples] = []
        prompts: list[int] = []
        while not enough(drawn):
            rows = self._prompts.next()
            drawn.append(self.task.draw(self.policy, rows, self.run.rng))
            prompts += rows
        samples = drawn[0] if len(drawn) == 1 else join(drawn)
        temperature = self.task.config.temperature
        ref = None
        if self._reference is not None:
            ref = self._reference.log_prob(samples.responses, temperature=temperature)
        self._last = Experience(
            samples=samples,
            ref_log_prob=ref,
            kl_coef=self._controller.coef,
            temperature=temperature,
            prompts=prompts,
        )
        return self._last
