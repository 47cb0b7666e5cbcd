"""Read datasets in LeRobot's format v3.0: as episodes, or into a Minari dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from minari.serialization import deserialize_space

from embodied_rl.data import lerobot_format as form
from embodied_rl.data.lerobot_video import read_frames
from embodied_rl.data.recorder import Info, Recorder


def read(folder: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the episodes of a folder as the arguments of `Recorder.add_episode`.

    A dataset that was not written here has no observation after the last action: that action is left out, and
    the episode counts as truncated. Raises ValueError for a folder that is no LeRobotDataset v3.0.
    """
    base = Path(folder)
    info, fields = load_info(base), _fields(base)
    texts = _written(base).get("texts", [])
    episodes = pq.read_table(sorted((base / "meta/episodes").glob("*/*.parquet")))
    episodes = episodes.sort_by("episode_index")
    path, table = None, None
    for number in range(len(episodes)):
        row = {name: episodes.column(name)[number : number + 1] for name in episodes.column_names}
        where = {key: row[f"data/{key}"][0].as_py() for key in ("chunk_index", "file_index")}
        if path != (path := base / info["data_path"].format(**where)):
            table = pq.read_table(path)
        assert table is not None
        first = table.column("episode_index").index(row["episode_index"][0]).as_py()
        frames = table.slice(first, row["length"][0].as_py())
        complete = all(form.FINAL + key in row for key in fields.values())
        if complete or len(frames) > 1:  # one frame without a successor is no step
            videos = _videos(base, info, row, len(frames))
            episode = _episode(frames, row, info["features"], fields, videos, complete=complete)
            for text in texts:
                said = np.full(len(episode["rewards"]) + 1, row["tasks"][0].as_py()[0], object)
                _put(episode["observations"], text, said)
            yield episode


def _videos(
    base: Path, info: dict[str, Any], row: dict[str, pa.ChunkedArray], steps: int
) -> dict[str, np.ndarray]:
    """The frames of an episode from its videos, `{key: [T, H, W, 3]}`."""
    found = {}
    for key, feature in info["features"].items():
        if feature["dtype"] == "video":
            where = {name: row[f"videos/{key}/{name}"][0].as_py() for name in ("chunk_index", "file_index")}
            path = base / info["video_path"].format(video_key=key, **where)
            start = row[f"videos/{key}/from_timestamp"][0].as_py()
            found[key] = read_frames(path, round(start * info["fps"]), steps, fps=info["fps"])
    return found


def _episode(
    table: pa.Table,
    row: dict[str, pa.ChunkedArray],
    features: dict[str, form.Feature],
    fields: dict[str, str],
    videos: dict[str, np.ndarray],
    *,
    complete: bool,
) -> dict[str, Any]:
    values = {key: form.from_column(table.column(key), features[key]) for key in table.column_names} | videos
    steps = len(table) if complete else len(table) - 1
    observations: dict[str, Any] = {}
    for path, key in fields.items():
        frames = values[key].reshape(len(table), *features[key]["shape"])
        if complete:
            final = form.from_column(row[form.FINAL + key], form.still(features[key]))
            frames = np.concatenate([frames, final.reshape(1, *features[key]["shape"])])
        _put(observations, path, frames)
    no = np.zeros(len(table), np.bool_)
    truncated = values.get("next.truncated", no)[:steps].copy()
    terminated = values.get("next.done", no)[:steps] & ~truncated
    if not complete:
        truncated[-1] = True
    success = values.get("next.success", no)[:steps]
    if form.START_SUCCESS in row:
        success = np.concatenate([[row[form.START_SUCCESS][0].as_py()], success])
    metadata = json.loads(row["metadata"][0].as_py()) if "metadata" in row else {}
    return {
        "observations": observations["observation"] if list(fields) == ["observation"] else observations,
        "actions": values["action"].reshape(len(table), *features["action"]["shape"])[:steps],
        "rewards": values.get("next.reward", no)[:steps].astype(np.float64),
        "terminations": terminated,
        "truncations": truncated,
        "infos": {"success": success},
        "metadata": metadata or {"instruction": row["tasks"][0].as_py()[0]},
    }


def import_dataset(
    folder: Path | str, dataset_id: str, root: Path | str | None = None, *, overwrite: bool = False
) -> int:
    """Make a Minari dataset of a folder; return the number of episodes.

    Images are stored without loss. Raises as `read` and `Recorder` do.
    """
    with Recorder(dataset_id, _minari_info(Path(folder)), root, overwrite=overwrite) as out:
        for episode in read(folder):
            out.add_episode(**episode)
    return out.num_episodes


def load_info(folder: Path | str) -> dict[str, Any]:
    """Read `meta/info.json`; ValueError where it is missing or of another version."""
    path = Path(folder) / "meta/info.json"
    try:
        info: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: is no LeRobot dataset ({error})") from error
    if not str(info.get("codebase_version")).startswith("v3."):
        raise ValueError(f"{path}: codebase_version={info.get('codebase_version')!r}: only v3.0 is read")
    for feature in info["features"].values():
        # Frames come out with their channels last, also where a dataset describes them the other way round.
        if feature["dtype"] in ("image", "video") and (feature.get("names") or [""])[0].startswith("channel"):
            feature["shape"] = [*feature["shape"][1:], feature["shape"][0]]
    return info


def _written(base: Path) -> dict[str, Any]:
    """What `lerobot.Writer` noted about the Minari side; empty for the datasets of others."""
    path = base / "meta/minari.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return known


def _fields(base: Path) -> dict[str, str]:
    """Observation fields of the Minari side, `{"a/b": LeRobot's key}`."""
    known = _written(base)
    if known:
        fields: dict[str, str] = known["fields"]
        return fields
    keys = [key for key in load_info(base)["features"] if key.startswith("observation")]
    names = {"observation.state": "observation"}
    return {names.get(key, key.removeprefix("observation.").replace(".", "/")): key for key in keys}


def _minari_info(base: Path) -> Info:
    known = _written(base)
    if known:
        return Info(
            observation_space=deserialize_space(known["observation_space"]),
            action_space=deserialize_space(known["action_space"]),
            env_spec=form.env_spec(known["env_spec"]),
            algorithm_name=known["algorithm_name"],
            description=known["description"],
            jpeg_encoding=False,
        )
    features = load_info(base)["features"]
    spaces: dict[str, Any] = {}
    for field, key in _fields(base).items():
        _put(spaces, field, form.space_of(features[key]))
    whole = spaces["observation"] if list(spaces) == ["observation"] else _nested(spaces)
    action = form.space_of(features["action"])
    return Info(observation_space=whole, action_space=action, jpeg_encoding=False)


def _nested(spaces: dict[str, Any]) -> gym.spaces.Dict:
    parts = {key: _nested(value) if isinstance(value, dict) else value for key, value in spaces.items()}
    return gym.spaces.Dict(parts)


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split("/")
    for key in above:
        tree = tree.setdefault(key, {})
    tree[last] = value
