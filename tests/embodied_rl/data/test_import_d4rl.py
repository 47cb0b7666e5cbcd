import sys

import h5py
import numpy as np
import pytest

from embodied_rl.data import minari_io
from embodied_rl.data.import_d4rl import import_d4rl

ID = "d4rl/data-v0"
# Three episodes: terminated after 3 steps, timed out after 4, cut off by the end of the file after 3.
TERMINALS = np.isin(np.arange(10), [2])
TIMEOUTS = np.isin(np.arange(10), [6])


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "d4rl.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(10, 3)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (10, 1)).astype(np.float32)
        file["rewards"] = rng.normal(size=10).astype(np.float32)
        file["terminals"] = TERMINALS
        file["timeouts"] = TIMEOUTS
        file["infos/qpos"] = rng.normal(size=(10, 2))
        file["metadata/algorithm"] = "SAC"
    return path


def qlearning_dataset(file):
    """What D4RL's function of this name makes of a file: (obs, action, reward, next_obs, done) per step."""
    rows = []
    for i in range(len(file["rewards"]) - 1):
        if file["timeouts"][i] and not file["terminals"][i]:
            continue
        rows.append((i, i + 1, bool(file["terminals"][i])))
    return rows


def test_transitions_are_those_of_d4rl(path, tmp_path, bars):
    seen = bars(sys.modules[import_d4rl.__module__])
    assert import_d4rl(path, ID, tmp_path) == 3
    assert seen == {"importing": (10, 10)}
    episodes = minari_io.load(ID, tmp_path)
    assert episodes.lengths.tolist() == [3, 3, 2]
    with h5py.File(path) as file:
        rows = qlearning_dataset(file)
        data = {key: file[key][()] for key in ("observations", "actions", "rewards")}
    assert episodes.num_steps == len(rows)
    obs_rows = episodes.obs_rows()
    obs = episodes.observations["observation"]
    for t, (i, successor, done) in enumerate(rows):
        np.testing.assert_array_equal(obs[obs_rows[t]], data["observations"][i])
        np.testing.assert_array_equal(episodes.actions[t], data["actions"][i])
        assert episodes.rewards[t] == data["rewards"][i]
        assert episodes.terminations[t] == done
        if not done:  # D4RL's successor of a terminal step is the next episode's start, and never used
            np.testing.assert_array_equal(obs[obs_rows[t] + 1], data["observations"][successor])
    assert np.flatnonzero(episodes.truncations).tolist() == [5, 7]


def test_next_observations_give_the_true_final_one(path, tmp_path):
    with h5py.File(path, "r+") as file:
        file["next_observations"] = file["observations"][()] + 1.0
    import_d4rl(path, ID, tmp_path)
    episodes = minari_io.load(ID, tmp_path)
    assert episodes.lengths.tolist() == [3, 4, 3]
    with h5py.File(path) as file:
        finals = file["next_observations"][[2, 6, 9]]
    np.testing.assert_array_equal(episodes.observations["observation"][episodes.obs_offsets[1:] - 1], finals)


def test_without_timeouts_the_time_limit_cuts(path, tmp_path):
    with h5py.File(path, "r+") as file:
        del file["timeouts"]
    with pytest.raises(ValueError, match="max_episode_steps"):
        import_d4rl(path, ID, tmp_path)
    import_d4rl(path, ID, tmp_path, max_episode_steps=4)
    assert minari_io.load(ID, tmp_path).lengths.tolist() == [3, 3, 2]


def test_an_environment_gives_spec_and_spaces(path, tmp_path):
    with pytest.raises(ValueError, match=r"observation: the file has shape \(3,\), CartPole-v1 has \(4,\)"):
        import_d4rl(path, ID, tmp_path, env_id="CartPole-v1")
    with pytest.raises(ValueError, match="did you mean Hopper-v5"):
        import_d4rl(path, ID, tmp_path, env_id="Hoper-v5")
    with pytest.raises(ValueError, match="observation: the file has shape"):
        import_d4rl(path, ID, tmp_path, env_id="FrankaKitchen-v1")
    import_d4rl(path, ID, tmp_path, env_id="Pendulum-v1")
    episodes = minari_io.load(ID, tmp_path)
    assert episodes.env_id == "Pendulum-v1"
    assert episodes.spec.action_high.tolist() == [2.0]


def test_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["observations"] = np.zeros(3)
    with pytest.raises(ValueError, match="no D4RL file"):
        import_d4rl(tmp_path / "other.hdf5", ID, tmp_path)
    (tmp_path / "text.hdf5").write_text("not HDF5")
    with pytest.raises(ValueError, match="not an HDF5 file"):
        import_d4rl(tmp_path / "text.hdf5", ID, tmp_path)
