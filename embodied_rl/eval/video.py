"""H.264 videos that browsers play, written frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GREEN = (105, 210, 120)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfig:
    """Film the first `episodes` episodes of an evaluation into `directory`."""

    directory: Path
    episodes: int = 1
    width: int = 320
    height: int = 240
    camera: str | None = None  # None: the environment's default view
    max_fps: float = 30.0  # faster control is thinned out to this, so that the video runs in real time

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"video.episodes={self.episodes}: must be at least 1")
        for name in ("width", "height"):
            value = getattr(self, name)
            if value < 16 or value % 2:
                raise ValueError(f"video.{name}={value}: must be even (yuv420p halves it) and at least 16")


def captioned(frame: np.ndarray, text: str, done: str = "", *, bar: int = 0) -> np.ndarray:
    """Put a line of text below a frame `[H, W, 3]`, and with `done` a green tick with these words at its end.

    The line is `bar` pixels high, by default an even number, about a fourteenth of the frame; long texts are
    set smaller.
    """
    height, width = frame.shape[:2]
    bar = bar or 2 * max(1, height // 28)
    image = Image.new("RGB", (width, height + bar), (24, 26, 30))
    image.paste(Image.fromarray(frame), (0, 0))
    draw, middle, edge = ImageDraw.Draw(image), height + bar / 2, bar // 2
    end = width - edge
    if done:
        font = ImageFont.load_default(0.5 * bar)
        draw.text((end, middle), done, _GREEN, font, anchor="rm")
        end -= draw.textlength(done, font) + 0.9 * bar
        tick = np.array([(0.0, 0.05), (0.2, 0.25), (0.6, -0.25)]) * bar + (end, middle)
        draw.line([tuple(point) for point in tick], _GREEN, max(1, bar // 10), joint="curve")
    size, room = 0.55 * bar, max(end - 2 * edge, 1.0)
    size *= min(1.0, room / draw.textlength(text, ImageFont.load_default(size)) if text else 1.0)
    draw.text((edge, middle), text, (240, 240, 240), ImageFont.load_default(max(size, 1.0)), anchor="lm")
    return np.asarray(image)


class Mp4Writer:
    """Encodes `[H, W, 3]` uint8 frames to H.264 in yuv420p; the index comes first: it plays at once.

    `crf` is the loss (0 none, 51 most); with `gop` every so many frames one is decodable by itself.
    """

    def __init__(self, path: Path, *, fps: float, crf: int = 23, gop: int = 0) -> None:
        if path.suffix != ".mp4":
            raise ValueError(f"{path}: must be a file that ends in .mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": str(crf), "preset": "veryfast"}
        if gop:
            # B-frames are shown out of order and would shift the time of the first frame.
            self._stream.options |= {"g": str(gop), "bf": "0"}
        self._stream.thread_count = 1  # frame threads would keep a dozen frames in memory for nothing
        self._shape: tuple[int, ...] | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append one frame; all frames have the shape of the first."""
        if self._shape is None:
            self._shape = frame.shape
            self._stream.height, self._stream.width = frame.shape[:2]
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"frame {frame.shape} {frame.dtype}: expected {self._shape} uint8")
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
            self._container.mux(packet)

    def close(self) -> None:
        """Flush and close the file."""
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()
