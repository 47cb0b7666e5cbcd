"""Write datasets in LeRobot's format v3.0, without LeRobot (which needs other versions of numpy).

`export("desk/lift_block/expert-v0", folder)` writes a Minari dataset so that LeRobot loads it;
`import_lerobot.read` gives back the same episodes. A LeRobot frame has no successor: what Minari knows beyond
the frames (the observation after the last action, seed, success, parameters) stands in further columns of
`meta/episodes` and in `meta/minari.json`, which LeRobot ignores. Images are stored as PNG in the data files,
without loss, or with `video=True` as H.264 in mp4 files, a tenth of the size and not quite the same pixels.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from minari.dataset.minari_storage import MinariStorage
from minari.serialization import serialize_space

from embodied_rl.data import lerobot_format as form
from embodied_rl.data import lerobot_video
from embodied_rl.data.lerobot_video import VideoFiles
from embodied_rl.data.minari_io import datasets_root, find
from embodied_rl.data.recorder import Info

CHUNK = 1000  # files per folder
MAX_FILE_MB = 100
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
_NO_TASK = "no instruction"


class Writer:
    """Appends whole episodes to a new folder; takes the same episodes as `Recorder`.

    `fps` is the control frequency. The folder appears when the block ends without an exception. Raises
    ValueError for an existing folder unless `overwrite`, for observations that are neither Box nor text, and
    with `video` for images of odd size.
    """

    def __init__(
        self,
        folder: Path | str,
        info: Info,
        *,
        fps: int,
        robot_type: str = "",
        video: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._folder = Path(folder)
        if fps < 1:
            raise ValueError(f"fps={fps}: must be at least 1")
        if self._folder.exists() and not overwrite:
            raise ValueError(f"{self._folder} exists; set overwrite=True")
        if not isinstance(info.action_space, gym.spaces.Box):
            raise ValueError(f"action_space={info.action_space}: only a Box can be written")
        self._info, self._fps, self._robot_type = info, fps, robot_type
        self._observations = form.observation_features(info.observation_space, video_fps=fps if video else 0)
        spaces = form.leaves(info.observation_space)
        self._texts = [path for path, space in spaces if isinstance(space, gym.spaces.Text)]
        self._features = dict(self._observations.values())
        self._features |= {"action": form.vector_feature(info.action_space), **form.OUTCOMES}
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._folder.parent))
        self._videos = {
            key: VideoFiles(self._temporary, key, fps=fps)
            for key, feature in self._features.items()
            if feature["dtype"] == "video"
        }
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._rows: dict[str, list[np.ndarray]] = {}  # of numbers, for the exact statistics of all
        self._counts: dict[str, np.ndarray] = {}  # of images: histograms
        self._file: pq.ParquetWriter | None = None
        self._file_number, self._file_bytes = -1, 0
        self.num_steps = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
        for videos in self._videos.values():
            videos.close()
        if kind is None:
            self._finish()
        else:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def add_episode(
        self,
        observations: Any,
        actions: np.ndarray,
        *,
        rewards: np.ndarray,
        terminations: np.ndarray,
        truncations: np.ndarray,
        infos: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an episode of T steps; shapes are those of `Recorder.add_episode`.

        The task is `metadata["instruction"]`, else `metadata["task"]`, and what text observations must say;
        success per step is `infos["success"]` `[T + 1]`, else `metadata["success"]` at the last step.
        """
        steps, metadata = len(rewards), dict(metadata or {})
        success = np.zeros(steps, np.bool_)
        if infos and "success" in infos:
            success[:] = np.asarray(infos["success"])[-steps:]
        elif steps:
            success[-1] = bool(metadata.get("success", False))
        ended = np.asarray(terminations, np.bool_) | np.asarray(truncations, np.bool_)
        values = {"action": actions, "next.reward": rewards, "next.done": ended, "next.success": success}
        values["next.truncated"] = np.asarray(truncations, np.bool_)
        final: dict[str, Any] = {}
        for path, (key, _) in self._observations.items():
            field = np.asarray(_get(observations, path))
            form.check_rows(key, field, steps + 1)
            values[key], final[form.FINAL + key] = field[:-1], field[-1:]
        for key, value in values.items():
            form.check_rows(key, value, steps)
        said = {str(text) for path in self._texts for text in _get(observations, path)}
        if said - {_task(metadata)}:
            raise ValueError(
                f"{self._texts} say {said}: in LeRobot's format only the task {_task(metadata)!r} can"
            )
        row = {form.START_SUCCESS: bool(infos["success"][0])} if infos and "success" in infos else {}
        self._write(values, final, metadata, row)

    def _write(
        self,
        values: dict[str, np.ndarray],
        final: dict[str, Any],
        metadata: dict[str, Any],
        row: dict[str, Any],
    ) -> None:
        steps = len(values["action"])
        number, text = len(self._episodes), _task(metadata)
        task = self._tasks.setdefault(text, len(self._tasks))
        values |= {
            "timestamp": np.arange(steps) / self._fps,
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, number),
            "index": np.arange(self.num_steps, self.num_steps + steps),
            "task_index": np.full(steps, task),
        }
        features = self._features | form.DEFAULT_FEATURES
        columns = {
            key: form.to_column(np.asarray(values[key]), feature)
            for key, feature in features.items()
            if feature["dtype"] != "video"
        }
        self._append(pa.table(columns))
        for key, videos in self._videos.items():
            row |= videos.add(values[key])
        row |= {
            "episode_index": number,
            "tasks": [text],
            "length": steps,
            "data/chunk_index": self._file_number // CHUNK,
            "data/file_index": self._file_number % CHUNK,
            "dataset_from_index": self.num_steps,
            "dataset_to_index": self.num_steps + steps,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "metadata": json.dumps(metadata, default=lambda value: np.asarray(value).tolist()),
        }
        for key, stats in self._episode_statistics(values, features):
            row |= {f"stats/{key}/{name}": value for name, value in form.as_lists(stats).items()}
        for key, value in final.items():
            row[key] = form.to_column(value, form.still(features[key.removeprefix(form.FINAL)]))[0]
        self._episodes.append(row)
        self.num_steps += steps

    def _append(self, table: pa.Table) -> None:
        """Write one episode as one row group, in the next file where this one is full."""
        if self._file is None or self._file_bytes + table.nbytes > MAX_FILE_MB * 2**20:
            if self._file:
                self._file.close()
            self._file_number, self._file_bytes = self._file_number + 1, 0
            path = self._temporary / DATA_PATH.format(
                chunk_index=self._file_number // CHUNK, file_index=self._file_number % CHUNK
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(path, table.schema, compression="snappy")
        self._file.write_table(table)
        self._file_bytes += table.nbytes

    def _episode_statistics(
        self, values: dict[str, np.ndarray], features: dict[str, form.Feature]
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Statistics of an episode, remembering what those of the dataset need."""
        for key, feature in features.items():
            if feature["dtype"] in ("image", "video"):
                counts = form.histogram(values[key])
                self._counts[key] = self._counts.get(key, 0) + counts
                yield key, form.image_statistics(counts, len(values[key]))
            else:
                rows = np.asarray(values[key], feature["dtype"])
                self._rows.setdefault(key, []).append(rows)
                yield key, form.statistics(rows)

    def _finish(self) -> None:
        if not self._episodes:
            shutil.rmtree(self._temporary)
            raise ValueError(f"{self._folder}: no episode was added")
        meta = self._temporary / "meta"
        path = self._temporary / EPISODES_PATH
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), path, compression="snappy")
        tasks = pd.DataFrame({"task_index": list(self._tasks.values())}, index=list(self._tasks))
        tasks.index.name = "task"
        tasks.to_parquet(meta / "tasks.parquet")
        stats = {key: form.statistics(np.concatenate(rows)) for key, rows in self._rows.items()}
        stats |= {key: form.image_statistics(row, self.num_steps) for key, row in self._counts.items()}
        _dump(meta / "stats.json", {key: form.as_lists(value) for key, value in stats.items()})
        _dump(meta / "info.json", self._describe())
        _dump(meta / "minari.json", self._describe_minari())
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._temporary.rename(self._folder)

    def _describe(self) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0",
            "robot_type": self._robot_type or None,
            "total_episodes": len(self._episodes),
            "total_frames": self.num_steps,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": MAX_FILE_MB,
            "video_files_size_in_mb": lerobot_video.MAX_FILE_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": lerobot_video.PATH if self._videos else None,
            "features": self._features | form.DEFAULT_FEATURES,
        }

    def _describe_minari(self) -> dict[str, Any]:
        info = self._info
        return {
            "observation_space": serialize_space(info.observation_space),
            "action_space": serialize_space(info.action_space),
            "env_spec": info.env_spec and info.env_spec.to_json(),
            "algorithm_name": info.algorithm_name,
            "description": info.description,
            "fields": {path: key for path, (key, _) in self._observations.items()},
            "texts": self._texts,
        }


def export(
    dataset_id: str,
    folder: Path | str,
    *,
    root: Path | str | None = None,
    fps: int = 10,
    robot_type: str = "",
    video: bool = False,
    overwrite: bool = False,
) -> int:
    """Write a local Minari dataset in LeRobot's format; return the number of episodes.

    Floating-point numbers become float32. Raises ValueError as `Writer` and `minari_io.load` do.
    """
    storage = MinariStorage.read(find(dataset_id, datasets_root(root), download=False))
    info = Info(
        observation_space=storage.observation_space,
        action_space=storage.action_space,
        env_spec=form.env_spec(storage.metadata.get("env_spec")),
        algorithm_name=storage.metadata.get("algorithm_name", ""),
        description=storage.metadata.get("description", ""),
    )
    indices = range(storage.total_episodes)
    with Writer(folder, info, fps=fps, robot_type=robot_type, video=video, overwrite=overwrite) as out:
        for episode, about in zip(
            storage.get_episodes(indices), storage.get_episode_metadata(indices), strict=True
        ):
            own = {key: value for key, value in about.items() if key not in ("id", "total_steps")}
            names = ("observations", "actions", "rewards", "terminations", "truncations")
            arrays = {name: episode[name] for name in names}
            out.add_episode(**arrays, infos=episode.get("infos"), metadata=own)
    return storage.total_episodes


def _task(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get("instruction") or metadata.get("task") or _NO_TASK)


def _get(tree: Any, path: str) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    for key in path.split("/"):
        tree = tree[key]
    return tree


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2))
