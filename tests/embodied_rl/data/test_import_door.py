from contextlib import nullcontext
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from embodied_rl.data import import_door, minari_io

DEMOS = Path(__file__).parents[4] / "shared" / "data" / "adroit-door-human" / "demos.npz"
ID = "door/human-v0"

pytestmark = pytest.mark.filterwarnings("ignore:.*reward functions were updated")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    if not DEMOS.exists():
        pytest.skip(f"the door demonstrations are not at {DEMOS}")
    root = tmp_path_factory.mktemp("datasets")
    progress = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_door, "counting", lambda name, total: nullcontext(progress.append))
        assert import_door.import_door_demonstrations(DEMOS, ID, root) == 25
    assert progress == list(range(1, 26))
    return root


def test_a_recorded_step_without_successor_is_dropped(root):
    demos = np.load(DEMOS)
    episodes = minari_io.load(ID, root)
    np.testing.assert_array_equal(episodes.lengths, demos["lengths"] - 1)
    np.testing.assert_array_equal(episodes.observations["observation"], demos["observations"])
    assert episodes.num_steps == 6729 - 25
    assert not episodes.terminations.any()
    np.testing.assert_array_equal(np.flatnonzero(episodes.truncations), episodes.step_offsets[1:] - 1)
    assert np.abs(episodes.actions).max() == 1.0
    assert episodes.env_id == "AdroitHandDoor-v1"
    assert len(episodes.metadata["repairs"]) == 5
    assert episodes.spec.env_kwargs["max_episode_steps"] == 200, "the limit of published scores"


def test_replay_from_the_repaired_state_follows_the_recording(root):
    episodes = minari_io.load(ID, root)
    env = gym.make("AdroitHandDoor-v1", max_episode_steps=300)
    options = minari_io.episode_metadata(ID, root)[0]["options"]
    recorded = episodes.episode(0)
    obs, _ = env.reset(options=options)
    np.testing.assert_allclose(obs, recorded["observations"]["observation"][0], atol=1e-6)
    errors = []
    for action, expected in zip(
        recorded["actions"], recorded["observations"]["observation"][1:], strict=True
    ):
        obs = env.step(action)[0]
        errors.append(np.abs(obs[:27] - expected[:27]).max())
    env.close()
    assert errors[0] < 0.003
    assert np.median(errors) < 0.05


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", observations=np.zeros(3))
    with pytest.raises(ValueError, match=r"\['actions', .* are missing"):
        import_door.import_door_demonstrations(tmp_path / "other.npz", ID, tmp_path)
    whole = (tmp_path / "other.npz").read_bytes()
    for content in (b"not an archive", b"", whole[: len(whole) // 2]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match="not a readable"):
            import_door.import_door_demonstrations(tmp_path / "bad.npz", ID, tmp_path)
