import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from embodied_rl.data.types import Spec
from embodied_rl.models.actors import DeterministicActor
from embodied_rl.models.policy import ActorPolicy, Normalizer
from embodied_rl.models.sources import open_policy, placed
from envs.config import Config
from envs.suites import DESK, make


@pytest.fixture
def saved(tmp_path):
    """The directory of a policy for `place_block`, and its task."""
    kwargs = {"task": "place_block", "max_episode_steps": 20}
    env = make(DESK, **kwargs)
    spec = Spec.from_spaces(env.observation_space, env.action_space, DESK, kwargs)
    actor = DeterministicActor(spec.obs_dim, spec.action_dim, [4], generator=torch.Generator())
    ActorPolicy(actor, spec, Normalizer.identity(spec.obs_dim)).save(tmp_path / "run" / "policy")
    return tmp_path / "run", spec


def test_a_saved_policy_acts_where_it_was_trained(saved):
    directory, spec = saved
    assert open_policy(str(directory), Config())[1].to_json() == spec.to_json()


def test_arguments_refine_the_environment_of_its_training(saved):
    directory, _ = saved
    found = open_policy(str(directory), Config(kwargs={"max_episode_steps": 30}))[1]
    assert found.env_kwargs == {"task": "place_block", "max_episode_steps": 30}
    with pytest.raises(ValueError, match="observation field 'desired_goal': the data has size"):
        open_policy(str(directory), Config(task="lift_block"))


def test_a_saved_policy_is_checked_against_another_environment(saved):
    directory, spec = saved
    with pytest.raises(ValueError, match="'desired_goal'.* the environment Hopper-v5 has no such field"):
        open_policy(str(directory), Config(id="Hopper-v5"))
    assert placed(spec, Config(id="Hopper-v5")).env_kwargs == {}


def test_vec_normalize_belongs_to_sb3_files(tmp_path):
    venv = VecNormalize(DummyVecEnv([lambda: make("Pendulum-v1")]))
    PPO("MlpPolicy", venv, n_steps=8, batch_size=8, device="cpu").save(tmp_path / "m.zip")
    venv.save(str(tmp_path / "stats.pkl"))
    env, statistics = Config(id="Pendulum-v1"), str(tmp_path / "stats.pkl")
    policy, spec = open_policy(str(tmp_path / "m.zip"), env, trust=True, vec_normalize=statistics)
    assert policy._normalize is not None
    assert spec.env_id == "Pendulum-v1"
    with pytest.raises(ValueError, match="only an SB3 .zip has such statistics"):
        open_policy("expert", Config(), vec_normalize=statistics)


def test_a_negative_seed_is_named():
    with pytest.raises(ValueError, match="seed=-1: must be at least 0"):
        open_policy("expert", Config(), seed=-1)
