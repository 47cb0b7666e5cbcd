"""The parts of LeRobotDataset v3.0 that are about one value: features, Arrow columns, statistics.

Layout and names follow huggingface/lerobot, `src/lerobot/datasets` (Apache-2.0), version 0.6; nothing of it
is needed to read or write.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
from gymnasium.envs.registration import EnvSpec
from PIL import Image

from embodied_rl.data.lerobot_video import describe

Feature = dict[str, Any]  # {"dtype": ..., "shape": [...], "names": ...}
FINAL = "final/"  # our prefix in `meta/episodes` for the observation after the last action
START_SUCCESS = "success_at_start"  # and for success before the first action
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
# What LeRobot adds to every frame by itself.
DEFAULT_FEATURES: dict[str, Feature] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
OUTCOMES: dict[str, Feature] = {
    "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
    "next.truncated": {"dtype": "bool", "shape": [1], "names": None},
    "next.success": {"dtype": "bool", "shape": [1], "names": None},
}
STATE = "observation.state"
_STATES = ("observation", "proprioception", "agent_pos")  # fields that become it
_IMAGE_AXES = ("height", "width", "channels")
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def observation_features(space: gym.Space[Any], *, video_fps: int = 0) -> dict[str, tuple[str, Feature]]:
    """LeRobot's key and feature of every observation field, `{"a/b": (key, feature)}`.

    The fields `observation` (which is what a plain Box is called), `proprioception` and `agent_pos` become
    `observation.state`, RGB images `observation.images.<camera>`, others `observation.<field>`. Images are
    videos where `video_fps` is given. Text is left out: it is LeRobot's `task`. Raises ValueError for a field
    of another kind, and for two states.
    """
    found: dict[str, tuple[str, Feature]] = {}
    for path, box in leaves(space):
        if isinstance(box, gym.spaces.Text):
            continue
        name = path.replace("/", ".")
        if box.dtype == np.uint8 and box.shape[2:] == (3,):
            feature: Feature = {"dtype": "image", "shape": list(box.shape), "names": list(_IMAGE_AXES)}
            if video_fps:
                feature |= {"dtype": "video", "info": describe(box.shape[0], box.shape[1], video_fps)}
            camera = name.removeprefix("rgb_").removeprefix("pixels.")
            found[path] = (f"observation.images.{camera}", feature)
        else:
            key = STATE if path in _STATES else f"observation.{name}"
            found[path] = (key, vector_feature(box))
    keys = [key for key, _ in found.values()]
    if len(set(keys)) < len(keys):
        raise ValueError(
            f"observation fields {list(found)} would become {keys}: each needs a name of its own"
        )
    return found


def leaves(space: gym.Space[Any], path: str = "") -> list[tuple[str, gym.spaces.Box | gym.spaces.Text]]:
    """Every field of an observation space with its path "a/b"; ValueError for what is no Box or text."""
    if isinstance(space, (gym.spaces.Box, gym.spaces.Text)):
        return [(path or "observation", space)]
    if isinstance(space, gym.spaces.Dict):
        parts = [leaves(inner, f"{path}/{key}".lstrip("/")) for key, inner in space.spaces.items()]
        return [leaf for part in parts for leaf in part]
    raise ValueError(
        f"observation {path or 'space'}={space}: only Box, text and Dict of these can be written"
    )


def vector_feature(box: gym.spaces.Box) -> Feature:
    """Feature of numbers; 64-bit floats become 32-bit ones, a single number has shape [1]."""
    dtype = "float32" if np.issubdtype(box.dtype, np.floating) else np.dtype(box.dtype).name
    return {"dtype": dtype, "shape": list(box.shape) or [1], "names": None}


def arrow_type(feature: Feature) -> pa.DataType:
    """Type of a column: a number, a fixed list of them, nested lists, or an image as bytes and path."""
    if feature["dtype"] == "image":
        return _IMAGE
    number = pa.from_numpy_dtype(np.dtype(feature["dtype"]))
    if feature["shape"] == [1]:
        return number
    if len(feature["shape"]) == 1:
        return pa.list_(number, feature["shape"][0])
    for _ in feature["shape"]:
        number = pa.list_(number)
    return number


def to_column(values: np.ndarray, feature: Feature) -> pa.Array:
    """Arrow column of `[T, *shape]` values; images become PNG files, without loss."""
    kind = arrow_type(feature)
    if feature["dtype"] == "image":
        return pa.array([{"bytes": _png(frame), "path": None} for frame in values], kind)
    flat = np.ascontiguousarray(values, feature["dtype"])
    if feature["shape"] == [1]:
        return pa.array(flat.reshape(-1), kind)
    if len(feature["shape"]) == 1:
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), type=kind)
    return pa.array(flat.reshape(len(flat), *feature["shape"]).tolist(), kind)


def from_column(column: pa.ChunkedArray | pa.Array, feature: Feature) -> np.ndarray:
    """The values `[T, *shape]` of a column, `[T]` for shape [1]."""
    if feature["dtype"] == "image":
        frames = [Image.open(io.BytesIO(cell["bytes"])) for cell in column.to_pylist()]
        return np.stack([np.asarray(frame) for frame in frames])
    if feature["shape"] == [1]:
        return np.asarray(column.to_numpy(zero_copy_only=False), feature["dtype"])
    if len(feature["shape"]) > 1:
        return np.array(column.to_pylist(), feature["dtype"])
    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.array(chunk.flatten(), feature["dtype"]).reshape(len(chunk), *feature["shape"])


def still(feature: Feature) -> Feature:
    """The feature of one image of a video."""
    return feature | {"dtype": "image"} if feature["dtype"] == "video" else feature


def _png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """LeRobot's statistics of `[T]` or `[T, *shape]` numbers: range, mean, std, count, quantiles."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers.reshape(len(numbers), 1) if numbers.ndim == 1 else numbers
    result = {
        "min": numbers.min(axis=0),
        "max": numbers.max(axis=0),
        "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0),
        "count": np.array([len(numbers)]),
    }
    levels = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    return result | dict(zip(QUANTILES, levels, strict=True))


def histogram(frames: np.ndarray) -> np.ndarray:
    """How often each channel of images `[T, H, W, 3]` takes each value, `[3, 256]`; histograms add up."""
    return np.stack([np.bincount(frames[..., channel].ravel(), minlength=256) for channel in range(3)])


def image_statistics(counts: np.ndarray, num_frames: int) -> dict[str, np.ndarray]:
    """`statistics` per channel, in [0, 1] and of shape [3, 1, 1], from a histogram."""
    levels, total = np.arange(256) / 255.0, counts.sum(axis=1)
    mean = counts @ levels / total
    std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0.0))
    seen = [levels[row > 0] for row in counts]
    cumulative = np.cumsum(counts, axis=1)
    result = {"min": np.array([s[0] for s in seen]), "max": np.array([s[-1] for s in seen])}
    result |= {"mean": mean, "std": std}
    for name, share in QUANTILES.items():
        # The nearest value from above, as np.quantile's "inverted_cdf".
        result[name] = levels[(cumulative >= share * total[:, None]).argmax(axis=1)]
    result = {name: value.reshape(3, 1, 1) for name, value in result.items()}
    return result | {"count": np.array([num_frames])}


def as_lists(stats: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The same as JSON and Arrow take it."""
    return {name: value.tolist() for name, value in stats.items()}


def check_rows(name: str, value: np.ndarray, rows: int) -> None:
    """Raise a ValueError naming a field that has not `rows` rows, or none at all."""
    if len(value) != rows or not rows:
        raise ValueError(
            f"{name} has {len(value)} rows, expected {rows}: an episode of T > 0 steps has T + 1 "
            f"observations and T of everything else"
        )


def space_of(feature: Feature) -> gym.spaces.Box:
    """The space of a feature, unbounded but for images."""
    if feature["dtype"] in ("image", "video"):
        return gym.spaces.Box(0, 255, tuple(feature["shape"]), np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, tuple(feature["shape"]), np.dtype(feature["dtype"]).type)


def env_spec(text: str | EnvSpec | None) -> EnvSpec | None:
    """The environment as Minari's metadata holds it, which is JSON or nothing."""
    return EnvSpec.from_json(text) if isinstance(text, str) else text
