import json
import os
import time
import warnings

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from embodied_rl.data import minari_io

ID = "test/data-v0"
BOX = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)
TWO_FLOATS = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


def data_file(root):
    return root / ID / "data" / "main_data.hdf5"


def same(loaded, recorded):
    assert loaded.num_episodes == len(recorded)
    for index, episode in enumerate(recorded):
        mine = loaded.episode(index)
        np.testing.assert_array_equal(
            mine["observations"]["observation"], episode["observations"].astype(np.float32)
        )
        np.testing.assert_array_equal(mine["actions"], episode["actions"])
        np.testing.assert_array_equal(mine["rewards"], episode["rewards"].astype(np.float32))
        np.testing.assert_array_equal(mine["terminations"], episode["terminations"])
        np.testing.assert_array_equal(mine["truncations"], episode["truncations"])


def test_every_episode_comes_back_and_is_mapped(write, tmp_path):
    recorded = write()
    loaded = minari_io.load(ID, tmp_path)
    same(loaded, recorded)
    same(minari_io.load(ID, tmp_path), recorded)
    assert isinstance(loaded.actions, np.memmap)
    assert loaded.actions.dtype == loaded.rewards.dtype == np.float32
    np.testing.assert_allclose(loaded.returns, [e["rewards"].sum() for e in recorded], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_datasets_minari_wrote(data_format, tmp_path, monkeypatch, bars):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            observations=rng.normal(size=(steps + 1, 4)),
            actions=rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
            rewards=rng.normal(size=steps),
            terminations=np.arange(steps) == steps - 1,
            truncations=np.zeros(steps, bool),
        )
        for steps in (4, 1, 6)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            ID, buffers, observation_space=BOX, action_space=TWO_FLOATS, data_format=data_format
        )
    seen = bars(minari_io.hdf5_reader if data_format == "hdf5" else minari_io)
    same(minari_io.load(ID), [vars(buffer) for buffer in buffers])
    assert seen == {"reading the dataset": (3, 3)}


def test_second_load_reads_only_the_cache(write, tmp_path, monkeypatch):
    write()
    minari_io.load(ID, tmp_path)
    monkeypatch.setattr(minari_io.hdf5_reader, "read", None)
    minari_io.load(ID, tmp_path)


def test_a_changed_dataset_gets_a_new_cache(write, tmp_path):
    write(lengths=(3, 4))
    minari_io.load(ID, tmp_path)
    with h5py.File(data_file(tmp_path), "r+") as file:
        file["episode_1/rewards"][2] = 99.0
    os.utime(data_file(tmp_path), ns=(1, 1))  # a file system with coarse times would not notice
    assert minari_io.load(ID, tmp_path).episode(1)["rewards"][2] == 99.0
    assert len(list((tmp_path / ID / minari_io.CACHE_NAME).iterdir())) == 1


def test_a_damaged_cache_is_written_anew_and_said(write, tmp_path):
    recorded = write()
    minari_io.load(ID, tmp_path)
    (folder,) = (tmp_path / ID / minari_io.CACHE_NAME).iterdir()
    victim = next(folder.glob("*observations*"))
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.warns(UserWarning, match="damaged"):
        same(minari_io.load(ID, tmp_path), recorded)


def test_cache_root(write, tmp_path):
    recorded = write()
    same(minari_io.load(ID, tmp_path, cache_root=tmp_path / "elsewhere"), recorded)
    assert not (tmp_path / ID / minari_io.CACHE_NAME).exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="data.cache_root"):
        minari_io.load(ID, tmp_path, cache_root=tmp_path / "file")


def test_nested_dictionaries_text_and_images(write, tmp_path):
    space = gym.spaces.Dict(
        {
            "observation": BOX,
            "desired_goal": gym.spaces.Dict({"kettle": BOX, "door": BOX}),
            "camera": gym.spaces.Box(0, 255, (32, 32, 3), np.uint8),
            "mission": gym.spaces.Text(20),
        }
    )
    recorded = write(observation_space=space, jpeg_encoding=False)
    loaded = minari_io.load(ID, tmp_path)
    assert set(loaded.observations) == {"observation", "desired_goal/kettle", "desired_goal/door", "camera"}
    assert loaded.observations["camera"].dtype == np.uint8
    for index, episode in enumerate(recorded):
        mine = loaded.episode(index)["observations"]
        np.testing.assert_array_equal(mine["camera"], episode["observations"]["camera"])
        expected = episode["observations"]["desired_goal"]["door"].astype(np.float32)
        np.testing.assert_array_equal(mine["desired_goal/door"], expected)


def test_jpegs_are_decoded_as_minari_decodes_them(write, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write(observation_space=gym.spaces.Box(0, 255, (32, 40, 3), np.uint8))
    mine = minari_io.load(ID)
    for index, episode in enumerate(minari.load_dataset(ID).iterate_episodes()):
        np.testing.assert_array_equal(
            mine.episode(index)["observations"]["observation"], episode.observations
        )


def test_episode_metadata(write, tmp_path):
    write()
    metadata = minari_io.episode_metadata(ID, tmp_path)
    assert [m["seed"] for m in metadata] == [10, 11, 12, 13, 14]
    assert metadata[2]["instruction"] == "do 2"
    assert metadata[2]["options"] == {"start": 2}


def test_unknown_id_lists_the_local_ones(write, tmp_path):
    write()
    with pytest.raises(
        ValueError, match=r"there: test/data-v0.*did you mean 'test/data-v0'.*write data.download=true"
    ):
        minari_io.load("test/dota-v0", tmp_path)
    with pytest.raises(ValueError, match="there: none"):
        minari_io.load(ID, tmp_path / "empty")


def test_download_goes_to_minari_and_the_given_root(write, tmp_path, monkeypatch):
    def download(dataset_id):
        assert (dataset_id, os.environ["MINARI_DATASETS_PATH"]) == (ID, str(tmp_path))
        write()

    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    monkeypatch.setattr(minari, "download_dataset", download)
    assert minari_io.load(ID, tmp_path, download=True).num_episodes == 5
    assert "MINARI_DATASETS_PATH" not in os.environ


@pytest.mark.parametrize(
    ("field", "value"), [("rewards", np.nan), ("actions", np.inf), ("observations", np.nan)]
)
def test_values_that_are_not_finite_are_named(field, value, write, tmp_path):
    write()
    with h5py.File(data_file(tmp_path), "r+") as file:
        file[f"episode_2/{field}"][4] = value
    with pytest.raises(ValueError, match=rf"episode 2: {field}.*step 4"):
        minari_io.load(ID, tmp_path)
    assert not list((tmp_path / ID / minari_io.CACHE_NAME).iterdir())


def test_sums_that_overflow_are_not_taken_for_infinite_values(write, tmp_path):
    write()
    with h5py.File(data_file(tmp_path), "r+") as file:
        file["episode_2/rewards"][...] = 3e38
    assert minari_io.load(ID, tmp_path).episode(2)["rewards"][0] == np.float32(3e38)


@pytest.mark.parametrize("field", ["observations", "actions", "truncations"])
def test_misaligned_episodes_are_named(field, write, tmp_path):
    write()
    with h5py.File(data_file(tmp_path), "r+") as file:
        data = file[f"episode_2/{field}"]
        data.resize(len(data) - 1, axis=0)
    with pytest.raises(ValueError, match=rf"episode_2: {field} has shape.*expected"):
        minari_io.load(ID, tmp_path)


def test_a_missing_field_is_named(write, tmp_path):
    write()
    with h5py.File(data_file(tmp_path), "r+") as file:
        del file["episode_1/actions"]
    with pytest.raises(ValueError, match=r"episode_1 cannot be read .*actions"):
        minari_io.load(ID, tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.9])
def test_a_file_cut_short(keep, write, tmp_path):
    write(lengths=(50,) * 20)
    path = data_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=r"main_data\.hdf5.*download or record it again"):
        minari_io.load(ID, tmp_path)


def edit_metadata(root, **values):
    path = root / ID / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_discrete_actions(write, tmp_path):
    write()
    edit_metadata(tmp_path, action_space='{"type": "Discrete", "dtype": "int64", "start": 0, "n": 4}')
    with pytest.raises(ValueError, match=r"Discrete\(4\).*only continuous"):
        minari_io.load(ID, tmp_path)


def test_an_empty_dataset(write, tmp_path):
    write()
    edit_metadata(tmp_path, total_episodes=0)
    with pytest.raises(ValueError, match="empty"):
        minari_io.load(ID, tmp_path)


def test_damaged_metadata(write, tmp_path):
    write()
    path = tmp_path / ID / "data" / "metadata.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match=r"metadata\.json is damaged"):
        minari_io.load(ID, tmp_path)


def test_more_episodes_promised_than_there_are(write, tmp_path):
    write()
    edit_metadata(tmp_path, total_episodes=6)
    with pytest.raises(ValueError, match="episode_5"):
        minari_io.load(ID, tmp_path)


def test_booleans_stored_as_integers(write, tmp_path):
    recorded = write()
    with h5py.File(data_file(tmp_path), "r+") as file:
        for index in range(5):
            flags = file[f"episode_{index}/terminations"][()]
            del file[f"episode_{index}/terminations"]
            file[f"episode_{index}/terminations"] = flags.astype(np.uint8)
    same(minari_io.load(ID, tmp_path), recorded)


def test_no_network_is_said(tmp_path, monkeypatch):
    def refuse(dataset_id):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(minari, "download_dataset", refuse)
    with pytest.raises(ValueError, match=r"data.download=true: test/data-v0 .*Name or service not known"):
        minari_io.load(ID, tmp_path, download=True)


def test_what_a_killed_process_left_is_removed_after_a_day(write, tmp_path):
    write()
    caches = tmp_path / ID / minari_io.CACHE_NAME
    for name, age in ((".tmp-old", 90_000), (".tmp-young", 60)):
        (caches / name).mkdir(parents=True)
        os.utime(caches / name, (time.time() - age,) * 2)
    minari_io.load(ID, tmp_path)
    assert [path.name for path in caches.glob(".tmp-*")] == [".tmp-young"]


def env_spec(limit, **kwargs):
    return gym.envs.registration.EnvSpec("X-v0", entry_point="x:X", kwargs=kwargs, max_episode_steps=limit)


def test_the_spec_makes_the_environment_again(write, tmp_path):
    write(env_spec=env_spec(20, task="place_block", render_mode="human"))
    spec = minari_io.load(ID, tmp_path).spec
    assert spec.env_kwargs == {"task": "place_block", "max_episode_steps": 20}
    write(env_spec=env_spec(300), eval_env_spec=env_spec(200))
    assert minari_io.load(ID, tmp_path).spec.env_kwargs == {"max_episode_steps": 200}
    write()
    spec = minari_io.load(ID, tmp_path).spec
    assert (spec.env_id, spec.env_kwargs) == ("", {})
