"""PPO on a reward learnt from preferences (Christiano et al. 2017, arXiv:1706.03741).

Every iteration is one of `online.ppo` with the reward of an ensemble in place of the environment's; now and
then `asking.Feedback` has segments compared and trains the ensemble. The environment's reward is seen by the
scripted teacher and by the figures alone.

The learnt reward has mean 0, so it says nothing about whether an episode should go on: as in the paper, the
environment should not end its episodes early (`env.kwargs={terminate_on_success: false}` on the desk).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from embodied_rl.eval import figures
from embodied_rl.feedback import asking, clips, reward_model
from embodied_rl.feedback.figures import feedback_figures
from embodied_rl.models.actors import Actor
from embodied_rl.models.policy import Normalizer
from embodied_rl.offline.interfaces import Evaluate
from embodied_rl.online import ppo
from embodied_rl.online.rollout import Collector, Steps, World
from rl_core.run import Run


# Derived from PPO's, against the rule of one level: settings and recipes of PPO hold here unchanged.
@dataclass(kw_only=True, slots=True)
class Config(ppo.Config):
    """PPO's settings, and how the reward is learnt."""

    feedback: asking.Config = field(default_factory=asking.Config)


class Agent(nn.Module):
    """PPO's agent and the reward model, which sees all that the critic sees."""

    def __init__(self, cfg: Config, world: World, generator: torch.Generator) -> None:
        super().__init__()
        spec, whole = world.spec, world.critic_spec
        privileged = whole.obs_dim - spec.obs_dim
        self.policy = ppo.Agent(cfg, spec, world.env.num_envs, generator, privileged=privileged)
        self.reward = reward_model.Agent(cfg.feedback.reward, whole.obs_dim, whole.action_dim, generator)

    @property
    def actor(self) -> Actor:
        """The policy's network."""
        return self.policy.actor

    def normalizer(self) -> Normalizer:
        """What the policy is saved with."""
        return self.policy.normalizer()


def rewarded(agent: reward_model.Agent, steps: Steps) -> Steps:
    """The rollout with the learnt reward in place of the environment's."""
    return dataclasses.replace(steps, reward=agent(steps.obs, steps.action.clamp(-1.0, 1.0)))


def train(cfg: Config, world: World, run: Run, evaluate: Evaluate) -> Agent:
    """Train for `run.cfg.steps` iterations, as `ppo.train` does; keeps comparisons in `feedback/` of the run.

    With a person as teacher the run pauses after asking, and raises ValueError when it goes on before all
    questions are answered.
    """
    ppo.check(world, run)
    camera = clips.Camera(world.env) if cfg.feedback.teacher.kind == "person" else None
    agent = Agent(cfg, world, run.rng)
    if cfg.start_from:
        ppo.take_over(agent.policy, Path(cfg.start_from))
    acting = dataclasses.replace(world, env=camera) if camera else world
    collector = Collector(acting, run.device, state_dim=agent.policy.actor.state_dim)
    feedback = asking.Feedback(cfg.feedback, agent.reward, world, run, camera)
    for step in run.steps(agent, pool=feedback.pool, judged=feedback.judged, **world.stateful):
        ppo.before_rollout(agent.policy, collector, cfg, run, step)
        run.log(step, feedback.before(step), group="feedback")
        steps = ppo.collect(agent.policy, collector, run.rng)
        run.log(step, feedback.after(steps, step), group="feedback")
        if len(feedback.judged):
            run.log(step, ppo.update(agent.policy, rewarded(agent.reward, steps), cfg, run.rng))
        run.log(step, collector.finished(), group="rollout")
        if run.should_eval(step):
            run.log(step, evaluate(agent), group="eval")
    if feedback.judged.history:
        pictures = feedback_figures(agent.reward, feedback.judged, feedback.pool.segments)
        figures.write(run.dir, pictures, of="feedback")
    return agent
