import numpy as np
import pytest

from envs.desk.chains import CHAIN_LENGTH, draw_chain, evaluate_chains
from envs.desk.experts import Expert
from envs.desk.scene import DESK
from envs.desk.situations import after, holds
from envs.desk.tasks import CALVIN_TASKS, TASKS


class Still:
    """Does nothing."""

    def reset(self, batch: int) -> None:
        pass

    def act(self, obs, deterministic: bool = True):
        return np.zeros((len(obs["observation"]), 7), np.float32)


def test_every_task_of_a_chain_can_begin_when_its_turn_comes():
    for seed in range(50):
        chain = draw_chain(np.random.default_rng(seed))
        assert len(chain.links) == CHAIN_LENGTH
        situation = chain.start
        for link in chain.links:
            task = TASKS[CALVIN_TASKS[link.task]]
            assert holds(situation, task.needs, link.target)
            if task.color in DESK.colors:
                assert DESK.colors.index(task.color) == link.target
            situation = after(situation, task.effects, link.target)
        families = [TASKS[CALVIN_TASKS[link.task]].success for link in chain.links]
        assert len(set(families)) == CHAIN_LENGTH


def test_the_expert_gets_far_and_idling_nowhere():
    expert = evaluate_chains(Expert(CALVIN_TASKS), 8, num_envs=8, max_steps=60)
    assert expert.mean_length >= 3.5
    assert list(expert.success) == sorted(expert.success, reverse=True)
    assert expert.mean_length == pytest.approx(sum(expert.success))
    still = evaluate_chains(Still(), 8, num_envs=8, max_steps=5)
    assert still.lengths.tolist() == [0] * 8


def test_how_many_run_side_by_side_changes_nothing():
    lengths = [
        evaluate_chains(Expert(CALVIN_TASKS), 3, num_envs=num_envs, max_steps=30).lengths.tolist()
        for num_envs in (1, 2, 3)
    ]
    assert lengths[0] == lengths[1] == lengths[2]


def test_impossible_requests_are_named():
    with pytest.raises(ValueError, match="no feasible chain"):
        draw_chain(np.random.default_rng(0), tasks=["turn_on_led"])
    with pytest.raises(ValueError, match="num_chains=0"):
        evaluate_chains(Still(), 0)
