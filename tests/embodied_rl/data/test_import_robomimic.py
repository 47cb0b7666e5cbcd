import sys

import h5py
import numpy as np
import pytest

from embodied_rl.data import minari_io
from embodied_rl.data.import_robomimic import import_robomimic

ID = "robomimic/lift-v0"
LENGTHS = (4, 3, 5)
NAMES = ("demo_2", "demo_10", "demo_1")  # alphabetic order would put demo_10 before demo_2


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "low_dim.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = '{"env_name": "Lift", "type": 1}'
        for name, steps in zip(NAMES, LENGTHS, strict=True):
            demo = file.create_group(f"data/{name}")
            demo.attrs["num_samples"] = steps
            pos = rng.normal(size=(steps + 1, 3))
            image = rng.integers(0, 256, (steps + 1, 32, 32, 3), dtype=np.uint8)
            for group, rows in (("obs", slice(None, -1)), ("next_obs", slice(1, None))):
                demo[f"{group}/robot0_eef_pos"] = pos[rows]
                demo[f"{group}/agentview_image"] = image[rows]
            demo["actions"] = rng.uniform(-1, 1, (steps, 7))
            demo["rewards"] = np.eye(steps)[-1]
            demo["dones"] = np.eye(steps, dtype=np.int64)[-1]
            demo["states"] = rng.normal(size=(steps, 11))
        file["mask/train"] = np.array([b"demo_1", b"demo_10"])
    return path


def test_demonstrations_in_the_order_of_their_numbers(path, tmp_path, bars):
    seen = bars(sys.modules[import_robomimic.__module__])
    assert import_robomimic(path, ID, tmp_path) == 3
    assert seen == {"importing": (3, 3)}
    episodes = minari_io.load(ID, tmp_path)
    assert episodes.lengths.tolist() == [5, 4, 3]
    assert episodes.metadata["robomimic_env_args"] == '{"env_name": "Lift", "type": 1}'
    with h5py.File(path) as file:
        for index, name in enumerate(("demo_1", "demo_2", "demo_10")):
            mine, demo = episodes.episode(index), file["data"][name]
            for key in ("robot0_eef_pos", "agentview_image"):
                obs = mine["observations"][key]
                assert obs.dtype == (np.uint8 if key == "agentview_image" else np.float32)
                np.testing.assert_array_equal(obs[:-1], demo["obs"][key][()].astype(obs.dtype))
                np.testing.assert_array_equal(obs[1:], demo["next_obs"][key][()].astype(obs.dtype))
            np.testing.assert_array_equal(mine["actions"], demo["actions"][()].astype(np.float32))
            assert mine["terminations"].tolist() == demo["dones"][()].astype(bool).tolist()
            assert not mine["truncations"].any()


def test_without_next_obs_the_last_step_goes(path, tmp_path):
    with h5py.File(path, "r+") as file:
        for name in NAMES:
            del file[f"data/{name}/next_obs"]
    import_robomimic(path, ID, tmp_path)
    episodes = minari_io.load(ID, tmp_path)
    assert episodes.lengths.tolist() == [4, 3, 2]
    assert np.flatnonzero(episodes.truncations).tolist() == [3, 6, 8]


def test_filter_key(path, tmp_path):
    assert import_robomimic(path, ID, tmp_path, filter_key="train") == 2
    assert [m["robomimic_demo"] for m in minari_io.episode_metadata(ID, tmp_path)] == ["demo_1", "demo_10"]
    with pytest.raises(ValueError, match="did you mean 'train'"):
        import_robomimic(path, ID, tmp_path, filter_key="trian", overwrite=True)


def test_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["observations"] = np.zeros(3)
    with pytest.raises(ValueError, match="no robomimic file"):
        import_robomimic(tmp_path / "other.hdf5", ID, tmp_path)
