"""Videos of LeRobotDataset v3.0: the episodes of one camera one after another in mp4 files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

from embodied_rl.eval.video import Mp4Writer

MAX_FILE_MB = 200
CHUNK = 1000  # files per folder
PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
# Every second frame can be decoded by itself, as in LeRobot's own files: training reads frames at random.
_GOP, _CRF = 2, 18


def describe(height: int, width: int, fps: int) -> dict[str, Any]:
    """What a feature's `info` says; ValueError for an odd size, which 4:2:0 video cannot have."""
    if height % 2 or width % 2:
        raise ValueError(f"image of {height} x {width}: video needs even sizes; store images instead")
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


class VideoFiles:
    """Writes the episodes of one camera, `key`, under `folder`."""

    def __init__(self, folder: Path, key: str, *, fps: int) -> None:
        self._folder, self._key, self._fps = folder, key, fps
        self._number, self._frames = -1, 0
        self._writer: Mp4Writer | None = None

    def add(self, frames: np.ndarray) -> dict[str, Any]:
        """Append an episode `[T, H, W, 3]`; return where it stands, as columns of `meta/episodes`."""
        if self._writer is None or self._writer.path.stat().st_size > MAX_FILE_MB * 2**20:
            self.close()
            self._number, self._frames = self._number + 1, 0
            self._writer = Mp4Writer(self._path(), fps=self._fps, crf=_CRF, gop=_GOP)
        for frame in frames:
            self._writer.add(frame)
        first, self._frames = self._frames, self._frames + len(frames)
        return {
            f"videos/{self._key}/chunk_index": self._number // CHUNK,
            f"videos/{self._key}/file_index": self._number % CHUNK,
            f"videos/{self._key}/from_timestamp": first / self._fps,
            f"videos/{self._key}/to_timestamp": self._frames / self._fps,
        }

    def _path(self) -> Path:
        where = {"chunk_index": self._number // CHUNK, "file_index": self._number % CHUNK}
        return self._folder / PATH.format(video_key=self._key, **where)

    def close(self) -> None:
        """Finish the last file."""
        if self._writer:
            self._writer.close()


def read_frames(path: Path, first: int, count: int, *, fps: float) -> np.ndarray:
    """Decode frames `first` to `first + count` of a file, `[count, H, W, 3]` uint8.

    Raises ValueError where the file holds fewer, or is no video.
    """
    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(int(first / fps / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                assert frame.time is not None
                if round(frame.time * fps) >= first:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == count:
                    return np.stack(frames)
    except (OSError, av.error.FFmpegError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    raise ValueError(f"{path}: {len(frames)} frames from number {first}, expected {count}")
