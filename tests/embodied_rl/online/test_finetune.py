"""An offline run on swinging pendulums goes on online: where, on which rows, at which rates, and resumed."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorWrapper
from omegaconf import OmegaConf

from embodied_rl.data import collect, minari_io, transitions
from embodied_rl.data.recorder import Recorder
from embodied_rl.offline import bc, cql, iql, td3_bc
from embodied_rl.online import finetune, rollout
from envs.config import Config as EnvConfig
from envs.suites import DESK, make_vec
from rl_core import checkpoint
from rl_core import run as runs

DATA = "test/pendulum-v0"
SMALL = {"hidden": (8,), "batch_size": 16}
PENDULUM = EnvConfig(id=DESK)  # what the script hands over where nobody named an environment
LIMIT = 6


@dataclass(kw_only=True, slots=True)
class Root:
    """The part of a script's configuration that a run of `train_offline` leaves in its `config.yaml`."""

    algo: Any
    data: transitions.Config
    run: runs.Config = field(default_factory=runs.Config)


class Waves:
    """Pushes one way and the other."""

    def reset(self, batch):
        pass

    def act(self, obs, deterministic=True):
        return np.sin(3.0 * obs["observation"][:, :1]).astype(np.float32)


class Witness(VectorWrapper):
    """Keeps what the environment said, and fails at call `fail_at` of `step`, as a power cut would."""

    def __init__(self, env, fail_at=None):
        super().__init__(env)
        self.obs, self.rewards, self.calls, self.fail_at = [], [], 0, fail_at

    def reset(self, **options):
        obs, infos = self.env.reset(**options)
        self.obs.append(obs)
        return obs, infos

    def step(self, actions):
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("power cut")
        obs, reward, *rest = self.env.step(actions)
        self.obs.append(obs)
        self.rewards.append(reward)
        return obs, reward, *rest


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with one dataset, recorded with the limit that its own environment says."""
    folder = tmp_path_factory.mktemp("datasets")
    env = make_vec("Pendulum-v1", 4, max_episode_steps=LIMIT)
    with Recorder(DATA, collect.info_of(env, algorithm_name="waves"), folder) as recorder:
        collect.record(Waves(), env, recorder, episodes=12, seed=0, noise=0.3)
    env.close()
    return folder


@pytest.fixture
def offline(root, tmp_path):
    """Train offline for three steps: `offline(module, <algorithm options>)` is the run's directory."""

    def go(module, **options):
        data = transitions.Config(
            id=DATA, root=str(root), normalize_obs=True, reward="return_scale", reward_scale=2.0,
            reward_bias=0.5, gamma=0.9,
        )  # fmt: skip
        algo, directory = module.Config(**SMALL, **options), tmp_path / "offline"
        settings = runs.Config(dir=str(directory), steps=3, device="cpu", tensorboard=False)
        config = Root(algo=algo, data=data, run=settings)
        with runs.Run(settings, config=config) as run:
            episodes = minari_io.load(DATA, root)
            module.train(algo, transitions.Transitions(episodes, data), run, lambda agent: {})
        return directory

    return go


@pytest.fixture
def go_on(tmp_path):
    """Go on online: `go_on(directory, <finetune options>, steps=..., ...)` gives agent and world."""

    def go(directory, *, steps=4, name="online", fail_at=None, run_options=None, **options):
        cfg = finetune.Config(offline_run=str(directory), **options)
        seen = rollout.Config(num_envs=2, horizon=4)
        settings = runs.Config(
            dir=str(tmp_path / name), steps=steps, device="cpu", tensorboard=False, log_every=1,
            **{"checkpoint_every": 2, "eval_every": 100, **(run_options or {})},
        )  # fmt: skip
        world = rollout.open_world(finetune.place(cfg, PENDULUM, seen), seen)
        world.env = Witness(world.env, fail_at)
        with world, runs.Run(settings, config=cfg) as run:
            return finetune.train(cfg, world, run, lambda agent: {"number": 1.0}), world

    return go


def looks(directory) -> list[int]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "eval/number" in row]


def test_what_is_seen_online_enters_as_the_dataset_did(offline, go_on, tmp_path, root):
    """Observations normalised and rewards transformed as in the dataset's rows, in rows `[N, T]`."""
    directory = offline(iql)
    _, world = go_on(directory, steps=1)
    kept = checkpoint.read_latest(tmp_path / "online" / "checkpoints")["replay"]
    assert kept["added"] == 2 * 4
    episodes = minari_io.load(DATA, root)
    raw = episodes.observations["observation"]
    expected = (np.stack(world.env.obs[:4], 1) - raw.mean(0)) / (raw.std(0) + 1e-3)  # as TD3+BC has it
    np.testing.assert_allclose(kept["rows"]["obs"].view(2, 4, 3), expected, rtol=1e-4, atol=1e-4)
    # The line that took the dataset's rewards to those of its transitions takes these along.
    _, _, data_cfg = finetune._saved(finetune.Config(offline_run=str(directory)))
    slope, offset = np.polyfit(episodes.rewards, transitions.Transitions(episodes, data_cfg)._reward, 1)
    assert abs(slope - 1.0) > 0.1
    reward = np.stack(world.env.rewards, 1) * slope + offset
    np.testing.assert_allclose(kept["rows"]["reward"].view(2, 4), reward, rtol=1e-4, atol=1e-4)
    assert (kept["rows"]["discount"] == 0.9).all()


@pytest.mark.parametrize(("fraction", "old"), [(0.25, 4), (0.0, 0), (1.0, 16)])
def test_a_batch_has_its_share_of_the_dataset(offline, go_on, tmp_path, monkeypatch, fraction, old):
    batches, update = [], iql.update

    def spy(agent, batch, noise, cfg):
        batches.append(batch.obs.clone())
        return update(agent, batch, noise, cfg)

    monkeypatch.setattr(iql, "update", spy)
    go_on(offline(iql), steps=1, offline_fraction=fraction)
    seen = checkpoint.read_latest(tmp_path / "online" / "checkpoints")["replay"]["rows"]["obs"]
    online = batches[-1][:, None].eq(seen).all(-1).any(1)
    assert len(batches) == 3 + 8  # offline, and one for every step of an environment
    assert online.tolist() == [False] * old + [True] * (16 - old)


def test_the_curve_is_dense_where_it_may_fall(offline, go_on, tmp_path):
    go_on(offline(iql), steps=11, run_options={"eval_every": 7})
    assert looks(tmp_path / "online") == [0, 1, 2, 4, 7, 11]


@pytest.mark.parametrize("module", [iql, cql, td3_bc])
def test_two_and_two_steps_equal_four(offline, go_on, tmp_path, module):
    directory = offline(module)
    whole, _ = go_on(directory, name="whole")
    with pytest.raises(RuntimeError, match="power cut"):
        go_on(directory, name="cut", fail_at=2 * 4 + 3)
    resumed, _ = go_on(directory, name="cut", run_options={"resume": True})
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert looks(tmp_path / "cut") == looks(tmp_path / "whole") == [0, 1, 2, 4]


def test_cut_before_the_first_checkpoint_it_looks_once_more_before_the_first_step(offline, go_on, tmp_path):
    directory = offline(iql)
    with pytest.raises(RuntimeError, match="power cut"):
        go_on(directory, fail_at=3)
    assert looks(tmp_path / "online") == [0]
    go_on(directory, run_options={"resume": True})
    assert looks(tmp_path / "online") == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("module", "change"),
    [
        (iql, {"lr": 1e-5, "actor_lr": 2e-5}),
        (cql, {"critic_lr": 1e-5, "policy_lr": 2e-5}),
        (td3_bc, {"critic_lr": 1e-5, "actor_lr": 2e-5}),
    ],
)
def test_learning_rates_are_the_configured_ones(offline, go_on, module, change):
    """Also after a schedule that ended near 0; without `change` they are those the offline run began with."""

    def rates(agent):
        optimizers = [part for part in vars(agent).values() if isinstance(part, torch.optim.Optimizer)]
        return sorted(group["lr"] for optimizer in optimizers for group in optimizer.param_groups)

    directory = offline(module)
    cfg = module.Config(**SMALL)
    before, _ = go_on(directory, steps=1, name="before")
    after, _ = go_on(directory, steps=1, name="after", change=change)
    assert rates(before) == sorted(getattr(cfg, name) for name in change)
    assert rates(after) == [1e-5, 2e-5]
    assert not torch.equal(before.actor.net.layers[0].weight, after.actor.net.layers[0].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": [4]}, r"algo.change.hidden=\[4\]: must be left out"),
        ({"actor_schedule": "constant"}, "algo.change.actor_schedule='constant': must be left out"),
        ({"tau": "abc"}, "algo.change.tau='abc': Value 'abc' of type 'str' could not be converted to Float"),
        ({"tau": 2.0}, "algo.tau=2.0: must be in"),
        ({"expectle": 0.9}, "algo.change='expectle': must be one of .*did you mean 'expectile'"),
    ],
)
def test_what_cannot_change_is_refused(offline, go_on, change, message):
    with pytest.raises(ValueError, match=message):
        go_on(offline(iql), change=change)


def test_a_number_may_change_as_on_a_command_line(offline, go_on):
    cfg = finetune.Config(offline_run=str(offline(cql)), change={"target_gap": "5", "max_backup": True})
    changed = finetune.open_run(cfg, torch.device("cpu")).cfg
    assert changed.target_gap == 5.0
    assert changed.max_backup
    assert changed.hidden == (8,)


def test_it_goes_on_in_the_environment_of_the_dataset(offline):
    cfg, seen = finetune.Config(offline_run=str(offline(iql))), rollout.Config()

    def place(**env):
        return finetune.place(cfg, EnvConfig(**env), seen)

    own = EnvConfig(id="Pendulum-v1", kwargs={"max_episode_steps": LIMIT})
    assert place() == place(id=DESK) == place(id="Pendulum-v1") == own
    assert place(kwargs={"g": 5.0}).kwargs == {"max_episode_steps": LIMIT, "g": 5.0}
    assert place(id="Pendulum-v1", kwargs={"max_episode_steps": 9}).kwargs == {"max_episode_steps": 9}
    assert place(id="Reacher-v5") == EnvConfig(id="Reacher-v5")
    assert place(id=DESK, task="lift_block") == EnvConfig(id=DESK, task="lift_block")
    for name in ("obs_keys", "critic_keys"):
        with pytest.raises(ValueError, match=f"rollout.{name}=.*must be empty with algo=finetune"):
            finetune.place(cfg, PENDULUM, rollout.Config(**{name: ("observation",)}))


def test_too_little_room_and_too_short_episodes_are_refused(offline, go_on):
    directory = offline(iql)
    with pytest.raises(ValueError, match="algo.capacity=7: must be at least 8, the steps of a rollout"):
        go_on(directory, name="a", capacity=7)
    with pytest.raises(ValueError, match="run.checkpoint_every=1: must be at least 2 with rollout.horizon=4"):
        go_on(directory, name="b", run_options={"checkpoint_every": 1})


def test_what_is_no_offline_run_is_named(offline, go_on, tmp_path):
    directory = offline(iql)
    saved = OmegaConf.load(directory / "config.yaml")

    def tell(message, **changes):
        OmegaConf.save({**saved, **changes}, directory / "config.yaml")
        with pytest.raises(ValueError, match=message):
            go_on(directory, name="no")

    tell("its networks have other sizes than its config.yaml and dataset", algo={**saved.algo, "hidden": [4]})
    cloned = OmegaConf.create(Root(algo=bc.Config(), data=transitions.Config(id=DATA))).algo
    tell("must be a run of one of iql, cql, td3_bc", algo=cloned)
    tell("data.n_step=3: must be 1", data={**saved.data, "n_step": 3})
    del saved["algo"]
    tell("must be a run of one of iql, cql, td3_bc")
    with pytest.raises(ValueError, match="holds no run"):
        go_on(tmp_path / "nowhere")
