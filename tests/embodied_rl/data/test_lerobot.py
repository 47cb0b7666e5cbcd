import json

import av
import datasets
import gymnasium as gym
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from embodied_rl.data import collect, import_lerobot, lerobot
from embodied_rl.data.lerobot_format import QUANTILES, image_statistics, statistics
from embodied_rl.data.lerobot_video import read_frames
from embodied_rl.data.minari_io import episode_metadata, load
from embodied_rl.data.recorder import Info, Recorder
from envs.desk.experts import Expert
from envs.suites import make_vec

IMAGE = gym.spaces.Box(0, 255, (12, 10, 3), np.uint8)
SPACE = gym.spaces.Dict(
    {
        "observation": gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
        "desired_goal": gym.spaces.Box(-np.inf, np.inf, (1,), np.float32),
        "cameras": gym.spaces.Dict(
            {"static": IMAGE, "depth": gym.spaces.Box(-np.inf, np.inf, (3, 2), np.float32)}
        ),
    }
)


def same(a, b) -> None:
    """Equal values and dtypes, in nested dicts."""
    if isinstance(a, dict):
        assert set(a) == set(b)
        for key in a:
            same(a[key], b[key])
    else:
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(a, b)


def to_float32(tree):
    """What LeRobot keeps of 64-bit numbers."""
    if isinstance(tree, dict):
        return {key: to_float32(value) for key, value in tree.items()}
    return tree.astype(np.float32) if tree.dtype == np.float64 else tree


def hf_features(features):
    """As `lerobot.datasets.feature_utils.get_hf_features_from_features` builds them."""
    result = {}
    for key, feature in features.items():
        shape, dtype = tuple(feature["shape"]), feature["dtype"]
        if dtype == "image":
            result[key] = datasets.Image()
        elif shape == (1,):
            result[key] = datasets.Value(dtype)
        elif len(shape) == 1:
            result[key] = datasets.Sequence(length=shape[0], feature=datasets.Value(dtype))
        else:
            result[key] = datasets.Array2D(shape=shape, dtype=dtype)
    return datasets.Features(result)


@pytest.fixture
def exported(write, tmp_path):
    """Episodes, and the folder that they were exported to."""
    episodes = write("test/data-v0", SPACE, jpeg_encoding=False)
    count = lerobot.export("test/data-v0", tmp_path / "out", root=tmp_path, fps=10, robot_type="panda")
    assert count == len(episodes)
    return episodes, tmp_path / "out"


def test_episodes_are_read_back_identically(exported):
    episodes, folder = exported
    for before, after in zip(episodes, import_lerobot.read(folder), strict=True):
        same(to_float32(before["observations"]), after["observations"])
        same(before["actions"], after["actions"])
        same(before["rewards"].astype(np.float32).astype(np.float64), after["rewards"])
        same(before["terminations"], after["terminations"])
        same(before["truncations"], after["truncations"])
        same(before["infos"]["success"], after["infos"]["success"])
        assert after["metadata"]["seed"] == before["metadata"]["seed"]
        assert after["metadata"]["instruction"] == before["metadata"]["instruction"]


def test_there_and_back_gives_the_same_minari_dataset(exported, tmp_path):
    _, folder = exported
    import_lerobot.import_dataset(folder, "test/again-v0", root=tmp_path)
    first, second = load("test/data-v0", tmp_path), load("test/again-v0", tmp_path)
    assert first.observation_space == second.observation_space
    assert first.action_space == second.action_space
    same(first.observations, second.observations)
    for name in ("actions", "rewards", "terminations", "truncations", "lengths"):
        same(getattr(first, name), getattr(second, name))
    assert episode_metadata("test/data-v0", tmp_path) == episode_metadata("test/again-v0", tmp_path)


def test_loads_with_the_calls_that_lerobot_makes(exported):
    episodes, folder = exported
    info = json.loads((folder / "meta/info.json").read_text())
    steps = sum(len(episode["rewards"]) for episode in episodes)
    assert info["codebase_version"] == "v3.0"
    assert (info["total_frames"], info["total_episodes"], info["fps"]) == (steps, len(episodes), 10)
    assert info["splits"] == {"train": f"0:{len(episodes)}"}
    assert info["features"]["observation.images.cameras.static"]["dtype"] == "image"
    paths = [str(path) for path in sorted((folder / "data").glob("*/*.parquet"))]
    data = datasets.Dataset.from_parquet(
        paths, features=hf_features(info["features"]), cache_dir=str(folder.parent / "cache")
    )
    assert len(data) == steps
    assert set(data.column_names) == set(info["features"])
    last = episodes[2]
    row = data[sum(len(e["rewards"]) for e in episodes[:2]) + 4]
    np.testing.assert_array_equal(
        row["observation.images.cameras.static"], last["observations"]["cameras"]["static"][4]
    )
    np.testing.assert_allclose(row["observation.state"], last["observations"]["observation"][4], rtol=1e-6)
    np.testing.assert_allclose(
        row["observation.cameras.depth"], last["observations"]["cameras"]["depth"][4], rtol=1e-6
    )
    assert (row["episode_index"], row["frame_index"], row["task_index"]) == (2, 4, 2)
    assert row["timestamp"] == pytest.approx(0.4)
    about = datasets.Dataset.from_parquet(
        str(folder / lerobot.EPISODES_PATH), cache_dir=str(folder.parent / "cache2")
    )
    assert about[2]["tasks"] == ["do 2"]
    assert about[2]["dataset_to_index"] - about[2]["dataset_from_index"] == about[2]["length"] == 7
    assert pq.ParquetFile(paths[0]).num_row_groups == len(episodes)


def test_tasks_are_shared_by_equal_instructions(tmp_path):
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    with lerobot.Writer(tmp_path / "out", Info(observation_space=box, action_space=box), fps=5) as out:
        for text in ("a", "b", "a"):
            zeros = np.zeros(2, bool)
            out.add_episode(
                np.zeros((3, 2)), np.zeros((2, 2)), rewards=np.zeros(2), terminations=zeros,
                truncations=zeros, metadata={"instruction": text, "success": True},
            )  # fmt: skip
    tasks = pd.read_parquet(tmp_path / "out/meta/tasks.parquet")
    assert tasks.index.name == "task"
    assert tasks["task_index"].to_dict() == {"a": 0, "b": 1}
    table = pq.read_table(tmp_path / "out" / lerobot.DATA_PATH.format(chunk_index=0, file_index=0))
    assert table["task_index"].to_pylist() == [0, 0, 1, 1, 0, 0]
    assert table["next.success"].to_pylist() == [False, True] * 3


def test_statistics_are_exact(exported):
    episodes, folder = exported
    stats = json.loads((folder / "meta/stats.json").read_text())
    rows = np.concatenate([e["observations"]["observation"][:-1] for e in episodes]).astype(np.float32)
    state = stats["observation.state"]
    np.testing.assert_allclose(state["mean"], rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state["std"], rows.std(axis=0), rtol=1e-5)
    for name, share in QUANTILES.items():
        np.testing.assert_allclose(state[name], np.quantile(rows.astype(float), share, axis=0), rtol=1e-6)
    assert state["count"] == [len(rows)]
    frames = np.concatenate([e["observations"]["cameras"]["static"][:-1] for e in episodes]) / 255
    image = stats["observation.images.cameras.static"]
    assert np.shape(image["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(image["mean"]), frames.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(image["std"]), frames.std(axis=(0, 1, 2)), rtol=1e-9)
    expected = np.quantile(frames, 0.9, axis=(0, 1, 2), method="inverted_cdf")
    np.testing.assert_allclose(np.ravel(image["q90"]), expected)
    assert statistics(np.array([True, False]))["mean"] == 0.5
    assert image_statistics(np.eye(3, 256, dtype=int), 1)["max"].ravel().tolist() == [0, 1 / 255, 2 / 255]


def test_files_are_split_at_their_size(write, tmp_path, monkeypatch):
    episodes = write("test/data-v0", SPACE, jpeg_encoding=False)
    monkeypatch.setattr(lerobot, "MAX_FILE_MB", 0.004)
    monkeypatch.setattr(lerobot, "CHUNK", 2)
    lerobot.export("test/data-v0", tmp_path / "out", root=tmp_path)
    files = sorted(
        str(p.relative_to(tmp_path / "out/data")) for p in (tmp_path / "out/data").rglob("*.parquet")
    )
    assert files[:3] == [
        "chunk-000/file-000.parquet",
        "chunk-000/file-001.parquet",
        "chunk-001/file-000.parquet",
    ]
    for before, after in zip(episodes, import_lerobot.read(tmp_path / "out"), strict=True):
        same(before["actions"], after["actions"])


def test_desk_recordings_keep_instruction_success_and_parameters(tmp_path):
    env = make_vec("embodied/Desk-v0", 2, task="lift_block", max_episode_steps=40)
    env.set_parameters({"mass_red": [0.1, 0.2]})
    with Recorder("desk/lift-v0", collect.info_of(env), tmp_path) as out:
        collect.record(Expert("lift_block"), env, out, episodes=2, seed=0)
    kept = episode_metadata("desk/lift-v0", tmp_path)
    assert [row["parameters"] for row in kept] == [{"mass_red": 0.1}, {"mass_red": 0.2}]
    lerobot.export("desk/lift-v0", tmp_path / "out", root=tmp_path)
    episodes = list(import_lerobot.read(tmp_path / "out"))
    for row, episode in zip(kept, episodes, strict=True):
        assert episode["metadata"]["parameters"] == row["parameters"]
        assert episode["metadata"]["instruction"] == row["instruction"]
        assert "block" in row["instruction"]
        assert episode["infos"]["success"].any() == row["success"]
    data = load("desk/lift-v0", tmp_path)
    same(dict(data.episode(1)["observations"]), episodes[1]["observations"])


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A recording of the desk with images and instructions, as Minari and as a LeRobotDataset with videos."""
    root = tmp_path_factory.mktemp("filmed")
    env = make_vec(
        "embodied/Desk-v0", 2, task="calvin", obs="state+rgb+language", image_size=32, max_episode_steps=5
    )
    with Recorder("desk/film-v0", collect.info_of(env, jpeg_encoding=False), root) as out:
        collect.record(Expert("calvin"), env, out, episodes=4, seed=0)
    lerobot.export("desk/film-v0", root / "video", root=root, video=True)
    lerobot.export("desk/film-v0", root / "images", root=root)
    return root


def test_videos_are_read_back_up_to_their_coding_and_everything_else_identically(filmed):
    still, moving = list(import_lerobot.read(filmed / "images")), list(import_lerobot.read(filmed / "video"))
    assert len(still) == len(moving) == 4
    for a, b in zip(still, moving, strict=True):
        for camera in ("rgb_static", "rgb_wrist"):
            first, second = a["observations"].pop(camera), b["observations"].pop(camera)
            error = np.abs(first.astype(float) - second).mean(axis=(1, 2, 3))
            assert 0 < error[:-1].max() < 8  # 4:2:0 halves the resolution of colour, and 32 pixels are few
            assert error[-1] == 0  # the observation after the last action is no frame
            shuffled = np.abs(first[:-1].astype(float) - second[:-1][::-1]).mean()
            assert error[:-1].mean() < shuffled
        assert a["observations"]["instruction"].tolist() == [a["metadata"]["instruction"]] * 6
        same(a["observations"].pop("instruction") == b["observations"].pop("instruction"), np.ones(6, bool))
        same(a, b | {"metadata": a["metadata"]})
        assert a["metadata"] == b["metadata"]


def test_videos_stand_where_lerobot_looks_for_them(filmed):
    info = json.loads((filmed / "video/meta/info.json").read_text())
    feature = info["features"]["observation.images.static"]
    assert (feature["dtype"], feature["shape"]) == ("video", [32, 32, 3])
    assert feature["info"]["video.fps"] == info["fps"] == 10
    table = pq.read_table(filmed / "video" / lerobot.EPISODES_PATH).to_pylist()
    assert "observation.images.static" not in pq.read_schema(next((filmed / "video/data").glob("*/*")))
    for row in table:
        key = "videos/observation.images.static"
        where = {name: row[f"{key}/{name}"] for name in ("chunk_index", "file_index")}
        path = filmed / "video" / info["video_path"].format(video_key="observation.images.static", **where)
        with av.open(str(path)) as film:
            assert film.streams.video[0].codec_context.name == "h264"
            assert film.streams.video[0].frames == info["total_frames"]
        seconds = row[f"{key}/to_timestamp"] - row[f"{key}/from_timestamp"]
        assert seconds == pytest.approx(row["length"] / 10)
    assert not any(path.suffix == ".mp4" for path in (filmed / "images").rglob("*"))


def test_image_recordings_with_text_come_back_as_the_same_minari_dataset(filmed):
    import_lerobot.import_dataset(filmed / "images", "desk/again-v0", root=filmed)
    first, second = load("desk/film-v0", filmed), load("desk/again-v0", filmed)
    assert first.observation_space == second.observation_space
    same(dict(first.observations), dict(second.observations))
    assert episode_metadata("desk/film-v0", filmed) == episode_metadata("desk/again-v0", filmed)


def test_a_text_that_is_not_the_task_is_refused(tmp_path):
    space = gym.spaces.Dict(
        {"said": gym.spaces.Text(9), "observation": gym.spaces.Box(-1, 1, (2,), np.float32)}
    )
    info = Info(observation_space=space, action_space=space["observation"])
    obs = {"said": ["left", "right"], "observation": np.zeros((2, 2))}
    no = np.zeros(1, bool)
    episode = {"rewards": np.zeros(1), "terminations": no, "truncations": no}
    episode["metadata"] = {"instruction": "left"}
    with (
        pytest.raises(ValueError, match="only the task 'left' can"),
        lerobot.Writer(tmp_path / "out", info, fps=1) as out,
    ):
        out.add_episode(obs, np.zeros((1, 2)), **episode)


def test_a_file_with_too_few_frames_is_named(filmed):
    path = next((filmed / "video/videos").rglob("*.mp4"))
    with pytest.raises(ValueError, match="file-000.mp4: .* frames from number 18, expected 9"):
        read_frames(path, 18, 9, fps=10)
    with pytest.raises(ValueError, match="cannot be read"):
        read_frames(filmed / "video/meta/info.json", 0, 1, fps=10)


def test_a_foreign_dataset_without_final_observations(exported, tmp_path):
    episodes, folder = exported
    (folder / "meta/minari.json").unlink()
    path = folder / lerobot.EPISODES_PATH
    table = pq.read_table(path)
    own = [name for name in table.column_names if name.startswith("final/") or name == "metadata"]
    pq.write_table(table.drop(own), path)
    long = list(import_lerobot.read(folder))
    assert [len(episode["rewards"]) for episode in long] == [
        len(e["rewards"]) - 1 for e in episodes if len(e["rewards"]) > 1
    ]
    assert long[1]["truncations"].tolist() == [False] * 5 + [True]
    same(
        long[1]["observations"]["observation"],
        episodes[2]["observations"]["observation"][:-1].astype(np.float32),
    )
    assert long[1]["metadata"]["instruction"] == "do 2"
    import_lerobot.import_dataset(folder, "test/foreign-v0", root=tmp_path)
    assert load("test/foreign-v0", tmp_path).num_episodes == len(long)


def test_bad_input(tmp_path, write):
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    info = Info(observation_space=box, action_space=box)
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="there exists; set overwrite"):
        lerobot.Writer(tmp_path / "there", info, fps=10)
    with pytest.raises(ValueError, match="fps=0"):
        lerobot.Writer(tmp_path / "new", info, fps=0)
    with pytest.raises(ValueError, match="only a Box"):
        lerobot.Writer(
            tmp_path / "new", Info(observation_space=box, action_space=gym.spaces.Discrete(2)), fps=1
        )
    with pytest.raises(ValueError, match="only Box"):
        lerobot.Writer(
            tmp_path / "new", Info(observation_space=gym.spaces.Discrete(2), action_space=box), fps=1
        )
    zeros = np.zeros(2, bool)
    episode = {"rewards": np.zeros(2), "terminations": zeros, "truncations": zeros}
    with (
        pytest.raises(ValueError, match=r"observation.state has 2 rows, expected 3"),
        lerobot.Writer(tmp_path / "new", info, fps=1) as out,
    ):
        out.add_episode(np.zeros((2, 2)), np.zeros((2, 2)), **episode)
    with pytest.raises(ValueError, match="no episode"), lerobot.Writer(tmp_path / "new", info, fps=1):
        pass
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".tmp-*"))
    with pytest.raises(ValueError, match="no LeRobot dataset"):
        next(import_lerobot.read(tmp_path / "nowhere"))
    (tmp_path / "old/meta").mkdir(parents=True)
    (tmp_path / "old/meta/info.json").write_text('{"codebase_version": "v2.1"}')
    with pytest.raises(ValueError, match="codebase_version='v2.1'"):
        next(import_lerobot.read(tmp_path / "old"))
    odd = Info(observation_space=gym.spaces.Box(0, 255, (15, 16, 3), np.uint8), action_space=box)
    with pytest.raises(ValueError, match="15 x 16: video needs even sizes"):
        lerobot.Writer(tmp_path / "new", odd, fps=1, video=True)
    twice = gym.spaces.Dict({"observation": box, "proprioception": box})
    with pytest.raises(ValueError, match="each needs a name of its own"):
        lerobot.Writer(tmp_path / "new", Info(observation_space=twice, action_space=box), fps=1)
