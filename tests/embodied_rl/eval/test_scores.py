import numpy as np
import pytest

from embodied_rl.eval.scores import D4RL, reference


@pytest.mark.parametrize(
    ("env_id", "family"),
    [
        ("Hopper-v5", "Hopper"),
        ("AdroitHandDoor-v1", "AdroitHandDoor"),
        ("AntMaze_UMaze-v5", "AntMaze"),
        ("FrankaKitchen-v1", "FrankaKitchen"),
    ],
)
def test_ends_of_the_scale(env_id, family):
    minimum, maximum, measured_on = D4RL[family]
    ref = reference(env_id)
    np.testing.assert_allclose(ref.score(np.array([minimum, maximum])), [0.0, 100.0])
    assert env_id in ref.source
    assert measured_on in ref.source


def test_door_demonstrations_score_29():
    assert reference("AdroitHandDoor-v1").score(794.1) == pytest.approx(29.0, abs=0.05)


@pytest.mark.parametrize(
    "env_id", ["embodied/Desk-v0", "AdroitHandDoorSparse-v1", "Humanoid-v5", "AntMazeLike-v0"]
)
def test_unknown_is_none(env_id):
    assert reference(env_id) is None


def test_the_datasets_own_scores_come_first():
    metadata = {"dataset_id": "D4RL/door/human-v2", "ref_min_score": -10.0, "ref_max_score": 10}
    ref = reference("AdroitHandDoor-v1", metadata)
    assert ref.score(0.0) == 50.0
    assert "D4RL/door/human-v2" in ref.source
    assert reference("Hopper-v5", {"ref_min_score": None}).minimum == D4RL["Hopper"][0]
