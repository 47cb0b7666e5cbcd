import json
import os
import signal

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest

from embodied_rl.data import minari_io
from embodied_rl.data.recorder import Info, Recorder

ID = "test/data-v0"
INFO = {
    "observation_space": gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
    "action_space": gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
}


def episode(steps=3, **changes):
    return {
        "observations": np.zeros((steps + 1, 2)),
        "actions": np.zeros((steps, 1)),
        "rewards": np.ones(steps),
        "terminations": np.zeros(steps, bool),
        "truncations": np.arange(steps) == steps - 1,
    } | changes


def test_minari_reads_what_was_recorded(write, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    spec = gym.spec("Pendulum-v1")
    recorded = write(
        observation_space=gym.spaces.Dict({"a": INFO["observation_space"], "text": gym.spaces.Text(10)}),
        env_spec=spec,
        eval_env_spec=spec,
        algorithm_name="expert",
        author=("A", "B"),
        requirements=("mujoco>=3",),
        ref_min_score=0.0,
        ref_max_score=2.0,
    )
    dataset = minari.load_dataset(ID)
    assert (dataset.total_episodes, dataset.total_steps) == (5, 18)
    assert dataset.env_spec == spec
    assert dataset.storage.metadata["author"] == {"A", "B"}
    assert minari.get_normalized_score(dataset, np.array([1.0])) == 0.5
    for mine, theirs in zip(recorded, dataset.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(theirs.observations["a"], mine["observations"]["a"].astype(np.float32))
        assert theirs.observations["text"] == mine["observations"]["text"]
        for field in ("actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(theirs, field), mine[field])
        np.testing.assert_array_equal(theirs.infos["success"], mine["infos"]["success"])
    assert list(minari.list_local_datasets()) == [ID]
    env = dataset.recover_environment(eval_env=True)
    assert env.spec.id == "Pendulum-v1"
    env.close()


def test_minari_can_append_to_it(write, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write(lengths=(3, 2))
    dataset = minari.load_dataset(ID)
    space = dataset.observation_space
    buffer = minari.data_collector.EpisodeBuffer(
        observations=np.ones((2, *space.shape)),
        actions=np.ones((1, 2), np.float32),
        rewards=[1.0],
        terminations=[True],
        truncations=[False],
        infos={"success": np.ones(2, bool)},
    )
    dataset.update_dataset_from_buffer([buffer])
    assert minari_io.load(ID).lengths.tolist() == [3, 2, 1]


def record_and_fail(root, **options):
    with Recorder(ID, Info(**INFO), root, **options) as recorder:
        recorder.add_episode(**episode())
        raise RuntimeError("the simulation exploded")


def test_nothing_appears_when_the_recording_fails(tmp_path):
    with pytest.raises(RuntimeError, match="exploded"):
        record_and_fail(tmp_path)
    assert minari_io.local_ids(tmp_path) == []
    assert not list((tmp_path / "test").iterdir())


def test_an_existing_dataset_is_kept_unless_told(write, tmp_path):
    write()
    with pytest.raises(ValueError, match="data.overwrite=true"):
        Recorder(ID, Info(**INFO), tmp_path)
    with pytest.raises(RuntimeError, match="exploded"):
        record_and_fail(tmp_path, overwrite=True)
    assert minari_io.load(ID, tmp_path).num_episodes == 5
    with Recorder(ID, Info(**INFO), tmp_path, overwrite=True) as recorder:
        recorder.add_episode(**episode())
    assert minari_io.load(ID, tmp_path).num_episodes == 1
    assert [path.name for path in (tmp_path / "test").iterdir() if path.is_dir()] == ["data-v0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((3, 2))}, r"observations has shape \(3, 2\), expected \(4, 2\)"),
        ({"actions": np.zeros((3, 2))}, r"actions has shape"),
        ({"truncations": np.zeros(2, bool)}, r"truncations has shape"),
        ({"rewards": np.zeros(0)}, r"no steps"),
    ],
)
def test_an_episode_that_does_not_fit_is_named_and_not_written(changes, message, tmp_path):
    with Recorder(ID, Info(**INFO), tmp_path) as recorder:
        recorder.add_episode(**episode())
        with pytest.raises(ValueError, match=message):
            recorder.add_episode(**episode(**changes))
    assert minari_io.load(ID, tmp_path).num_episodes == 1


@pytest.mark.parametrize("dataset_id", ["no-version", "a/short-v0", "sp ace/data-v0", "../up-v0"])
def test_malformed_ids(dataset_id, tmp_path):
    with pytest.raises(ValueError, match="namespace/name-v0"):
        Recorder(dataset_id, Info(**INFO), tmp_path)


def test_no_episode_no_dataset(tmp_path):
    with pytest.raises(ValueError, match="no episode"), Recorder(ID, Info(**INFO), tmp_path):
        pass
    assert minari_io.local_ids(tmp_path) == []


def test_metadata_has_minaris_keys(write, tmp_path):
    write(extra={"repairs": ["none"]})
    metadata = json.loads((tmp_path / ID / "data" / "metadata.json").read_text())
    assert metadata["total_steps"] == 18
    assert metadata["repairs"] == ["none"]
    assert (tmp_path / "test" / "namespace_metadata.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_the_episodes_so_far(number, tmp_path, capsys):
    def interrupt():
        with Recorder(ID, Info(**INFO), tmp_path) as recorder:
            recorder.add_episode(**episode())
            os.kill(os.getpid(), number)
            recorder.add_episode(**episode())

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as exit_info:
        interrupt()
    assert exit_info.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert minari_io.load(ID, tmp_path).num_episodes == 1
    assert "holds the 1 episodes" in capsys.readouterr().err


def test_an_interrupt_within_an_episode_drops_it(tmp_path, monkeypatch):
    def interrupt():
        with Recorder(ID, Info(**INFO), tmp_path) as recorder:
            recorder.add_episode(**episode())
            monkeypatch.setattr(recorder, "_write", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
            recorder.add_episode(**episode())

    with pytest.raises(SystemExit):
        interrupt()
    with h5py.File(tmp_path / ID / "data" / minari_io.HDF5_NAME) as file:
        assert list(file) == ["episode_0"]


def test_an_interrupt_does_not_replace_a_whole_dataset(write, tmp_path, capsys):
    def interrupt():
        with Recorder(ID, Info(**INFO), tmp_path, overwrite=True) as recorder:
            recorder.add_episode(**episode())
            os.kill(os.getpid(), signal.SIGTERM)

    write()
    with pytest.raises(SystemExit):
        interrupt()
    assert minari_io.load(ID, tmp_path).num_episodes == 5
    assert "left as it was" in capsys.readouterr().err
    assert not list((tmp_path / "test").glob(".tmp-*"))
