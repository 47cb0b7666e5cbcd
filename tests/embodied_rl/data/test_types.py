import gymnasium as gym
import numpy as np
import pytest

from embodied_rl.data.types import Spec, as_fields


def box(*shape: int, low: float = -1.0, high: float = 1.0) -> gym.spaces.Box:
    return gym.spaces.Box(low, high, shape, np.float32)


GOAL = gym.spaces.Dict({"observation": box(4), "achieved_goal": box(3), "desired_goal": box(3)})


def test_a_box_is_the_field_observation():
    spec = Spec.from_spaces(box(5), box(2), "X-v0")
    assert (spec.obs_keys, spec.obs_dim, spec.action_dim) == (("observation",), 5, 2)


def test_a_goal_task_is_goal_and_observation_in_that_order():
    spec = Spec.from_spaces(GOAL, box(2), "X-v0")
    obs = {"observation": np.ones((2, 4)), "desired_goal": np.zeros((2, 3)), "achieved_goal": np.ones((2, 3))}
    assert spec.flatten(obs).tolist() == [[0, 0, 0, 1, 1, 1, 1]] * 2


def test_actions_are_scaled_to_the_box_and_back():
    spec = Spec.from_spaces(box(1), box(1, low=0.0, high=4.0), "X-v0")
    assert spec.to_env_action(np.array([[-1.0], [0.0], [1.0]])).ravel().tolist() == [0.0, 2.0, 4.0]
    assert spec.from_env_action(np.array([[0.0], [3.0]])).ravel().tolist() == [-1.0, 0.5]


def test_json_round_trip():
    spec = Spec.from_spaces(GOAL, box(2), "X-v0", {"task": "lift_block"})
    again = Spec.from_json(spec.to_json())
    assert again.to_json() == spec.to_json()
    assert again.env_kwargs == {"task": "lift_block"}


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (box(4), box(2), r"observation field 'observation': the data has size 5, the environment X-v0 has 4"),
        (GOAL, box(2), r"observation field 'observation': the data has size 5, the environment X-v0 has 4"),
        (gym.spaces.Dict({"state": box(5)}), box(2), r"'observation': the data has size 5, .* no such field"),
        (box(5), box(3), r"action: the data has shape \(2,\), the environment X-v0 has \(3,\)"),
        (box(5), box(2, high=2.0), r"action bounds"),
    ],
)
def test_a_misfit_names_the_field_and_both_shapes(observation: gym.Space, action: gym.Space, message: str):
    with pytest.raises(ValueError, match=message):
        Spec.from_spaces(box(5), box(2), "X-v0").check(observation, action)


def test_fields_that_a_policy_does_not_read_do_not_matter():
    data = gym.spaces.Dict({"observation": box(4)})
    Spec.from_spaces(data, box(2), "X-v0").check(GOAL, box(2))


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (box(4), gym.spaces.Discrete(3), "only continuous"),
        (gym.spaces.Discrete(3), box(2), "expected a Box or a Dict"),
        (box(4), box(2, high=np.inf), "both bounds must be finite"),
        (box(4), box(2, low=1.0), "low must be below high"),
    ],
)
def test_unsupported_spaces_are_refused(observation: gym.Space, action: gym.Space, message: str):
    with pytest.raises(ValueError, match=message):
        Spec.from_spaces(observation, action, "X-v0")


def test_a_missing_observation_field_is_named():
    with pytest.raises(ValueError, match=r"fields \['desired_goal'\] are missing"):
        Spec.from_spaces(GOAL, box(2), "X-v0").flatten({"observation": np.zeros((1, 4))})


def test_nested_fields_are_named_by_their_path():
    """As in the kitchen, whose goals are a Dict."""
    goals = gym.spaces.Dict({"kettle": box(7), "door": box(1)})
    space = gym.spaces.Dict({"observation": box(4), "achieved_goal": goals, "desired_goal": goals})
    spec = Spec.from_spaces(space, box(2), "X-v0")
    assert spec.obs_keys == ("desired_goal/door", "desired_goal/kettle", "observation")
    spec.check(space, box(2))
    batch = {key: np.ones((2, *inner.shape)) for key, inner in goals.items()}
    obs = {"observation": np.zeros((2, 4)), "achieved_goal": batch, "desired_goal": batch}
    assert spec.flatten(as_fields(obs)).shape == (2, 12)
    assert set(as_fields(batch["door"])) == {"observation"}


def test_a_policy_may_read_the_achieved_goal():
    chosen = Spec(
        env_id="X-v0",
        obs_keys=("achieved_goal",),
        obs_dims=(3,),
        action_low=-np.ones(2, np.float32),
        action_high=np.ones(2, np.float32),
    )
    chosen.check(GOAL, box(2))
