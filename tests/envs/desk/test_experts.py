import numpy as np
import pytest

from envs.desk.experts import Expert
from envs.desk.scene import SCENES
from envs.desk.tasks import tasks_of
from envs.desk.vector import DeskVectorEnv


def first_episodes(env: DeskVectorEnv, expert: Expert, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Success and length of every simulation's first episode."""
    obs, _ = env.reset(seed=seed)
    success, length = np.zeros(env.num_envs, bool), np.zeros(env.num_envs, int)
    while (length == 0).any():
        obs, _, terminated, truncated, infos = env.step(expert.act(obs))
        ends = (terminated | truncated) & (length == 0)
        if ends.any():
            success[ends] = infos["final_info"]["is_success"][ends]
            length[ends] = env.num_steps
    return success, length


class Counting(DeskVectorEnv):
    """Counts its steps."""

    num_steps = 0

    def step(self, actions):
        self.num_steps += 1
        return super().step(actions)


@pytest.mark.parametrize("task", ["lift_block", "place_block"])
def test_expert_succeeds_on_200_seeds(task: str):
    success, length = first_episodes(Counting(200, task), Expert(task), seed=10_000)
    assert success.mean() >= 0.95
    assert length[success].mean() < 45


@pytest.mark.parametrize("scene", SCENES)
def test_one_expert_serves_all_tasks_of_a_scene(scene: str):
    tasks = tasks_of(SCENES[scene])
    success, _ = first_episodes(Counting(40, tasks, scene=scene), Expert(tasks, scene=scene), seed=0)
    assert success.mean() >= 0.95


def test_noise_and_mistakes_lower_the_quality():
    rates = [
        first_episodes(Counting(40), Expert(noise=noise, mistakes=mistakes), seed=0)[0].mean()
        for noise, mistakes in ((0.0, 0.0), (0.3, 0.1), (0.6, 0.3))
    ]
    assert rates[0] > rates[1] > rates[2]


def test_deterministic_leaves_noise_out_and_a_seed_repeats_it():
    obs, _ = DeskVectorEnv(4).reset(seed=0)
    noisy = Expert(noise=0.2, mistakes=0.5, seed=1)
    np.testing.assert_array_equal(noisy.act(obs, deterministic=True), Expert().act(obs))
    again = Expert(noise=0.2, mistakes=0.5, seed=1)
    for _ in range(3):
        np.testing.assert_array_equal(noisy.act(obs), again.act(obs))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="did you mean 'place_block'"):
        Expert("place_blok")
    with pytest.raises(ValueError, match="noise=-1"):
        Expert(noise=-1)
    with pytest.raises(ValueError, match="mistakes=2"):
        Expert(mistakes=2)
    obs, _ = DeskVectorEnv(2, "place_block").reset(seed=0)
    with pytest.raises(ValueError, match="add state to obs="):
        Expert("lift_block").act({"proprioception": np.zeros((2, 22), np.float32)})
    with pytest.raises(ValueError, match=r"desired_goal \(2, 5\).*lift_block"):
        Expert("lift_block").act(obs)
