import av
import numpy as np
import pytest

from embodied_rl.eval.video import Mp4Writer, VideoConfig


def test_written_video_is_what_browsers_play(tmp_path):
    frames = np.zeros((12, 48, 64, 3), np.uint8)
    frames[6:, :, :, 0] = 200
    writer = Mp4Writer(tmp_path / "new" / "v.mp4", fps=12.5)
    for frame in frames:
        writer.add(frame)
    writer.close()
    with av.open(str(tmp_path / "new" / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(12.5)
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert decoded.shape == frames.shape
    assert decoded[0, ..., 0].mean() < 20
    assert decoded[-1, ..., 0].mean() > 150
    data = (tmp_path / "new" / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first"


def test_only_mp4_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"v\.txt: must be a file that ends in \.mp4"):
        Mp4Writer(tmp_path / "v.txt", fps=10)


def test_frames_must_agree(tmp_path):
    writer = Mp4Writer(tmp_path / "v.mp4", fps=10)
    writer.add(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"expected \(16, 16, 3\) uint8"):
        writer.add(np.zeros((16, 18, 3), np.uint8))
    writer.close()


@pytest.mark.parametrize("field", [{"width": 321}, {"height": 8}, {"episodes": 0}])
def test_config_is_checked(tmp_path, field):
    name, value = next(iter(field.items()))
    with pytest.raises(ValueError, match=f"video.{name}={value}"):
        VideoConfig(directory=tmp_path, **field)
