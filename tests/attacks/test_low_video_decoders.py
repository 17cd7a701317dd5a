"""Of ffmpeg's 300 video decoders, many of them for formats of old games, a file in the claim reaches only the ordinary ones."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from videogen_api.training_run import Reason
from videogen_models.video import decode_mp4
from videogen_trainer.failure import Failure
from videogen_trainer.video_reading import read_frames, seconds_of, size_of


def written(path: Path, codec: str, pixels: str, container: str) -> Path:
    """Three frames of noise by this encoder."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(random.integers(0, 256, (64, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    return path


UNUSUAL = {"FFV1": ("ffv1", "yuv420p"), "Snow": ("snow", "yuv420p"), "QuickTime's": ("rawvideo", "yuv420p")}


@pytest.mark.parametrize("codec, pixels", UNUSUAL.values(), ids=UNUSUAL)
def test_an_unusual_decoder_is_not_reached(tmp_path: Path, codec: str, pixels: str) -> None:
    path = written(tmp_path / "a.webm", codec, pixels, "matroska")
    for look in (size_of, seconds_of, lambda video: list(read_frames(video))):
        with pytest.raises(Failure, match=f"its pictures are in {codec}; accepted are h264, hevc,") as failure:
            look(path)
        assert failure.value.reason is Reason.VIDEO_UNREADABLE


@pytest.mark.parametrize(
    "codec, container, said", [("mpeg4", "mp4", "are in mpeg4; expected h264"), ("ffv1", "matroska", "cannot be decoded")]
)
def test_of_what_a_model_has_made_only_h264_is_decoded(tmp_path: Path, codec: str, container: str, said: str) -> None:
    data = written(tmp_path / "a", codec, "yuv420p", container).read_bytes()
    with pytest.raises(ValueError, match=said):
        decode_mp4(data)
    assert len(decode_mp4(written(tmp_path / "b", "libx264", "yuv420p", "mp4").read_bytes())) == 3


USUAL = {
    "H.264": ("libx264", "yuv420p", "mp4"),
    "HEVC": ("libx265", "yuv420p", "mp4"),
    "VP8": ("libvpx", "yuv420p", "webm"),
    "VP9": ("libvpx-vp9", "yuv420p", "webm"),
    "MPEG-4": ("mpeg4", "yuv420p", "mp4"),
    "Motion JPEG": ("mjpeg", "yuvj420p", "mov"),
    "ProRes": ("prores_ks", "yuv422p10le", "mov"),
}


@pytest.mark.parametrize("codec, pixels, container", USUAL.values(), ids=USUAL)
def test_what_cameras_and_browsers_write_is_read(tmp_path: Path, codec: str, pixels: str, container: str) -> None:
    path = written(tmp_path / f"a.{container}", codec, pixels, container)
    assert [picture.shape for picture in read_frames(path)] == 3 * [(64, 64, 3)]
