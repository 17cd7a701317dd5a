"""Reading webm files, which say how long they are and not how many frames they have."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videogen_trainer.failure import Failure
from videogen_trainer.video_reading import read_frames

SAMPLES = 960  # of an Opus packet of 20 ms
VARIABLE = [*range(0, 400, 33), 2000, *range(2033, 2400, 33), 5000]  # thousandths of a second: pictures that stand for long


def webm(path: Path, times: list[int], sound: float, **options: str) -> None:
    """Noise in VP8 at these times, in thousandths of a second, with so many seconds of sound in Opus."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        pictures = container.add_stream("libvpx", rate=30)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        pictures.time_base = pictures.codec_context.time_base = Fraction(1, 1000)
        packets = []
        heard = container.add_stream("libopus", rate=48_000, layout="mono") if sound else None
        for time in times:
            frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            packets += pictures.encode(frame)
        packets += pictures.encode()
        for number in range(int(sound * 48_000 / SAMPLES)):
            assert heard
            silence = av.AudioFrame.from_ndarray(np.zeros((1, SAMPLES), np.float32), format="flt", layout="mono")
            silence.sample_rate, silence.pts = 48_000, number * SAMPLES
            packets += heard.encode(silence)
        packets += heard.encode() if heard else []
        for packet in sorted(packets, key=lambda packet: float((packet.pts or 0) * (packet.time_base or 0))):
            container.mux(packet)


def frames_in(path: Path) -> int:
    return sum(1 for _ in read_frames(path))


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize(("sound", "times"), [(0, list(range(0, 5000, 125))), (5, list(range(0, 5000, 125))), (5.5, VARIABLE)])
def test_a_webm_that_was_cut_off_is_refused_with_and_without_sound(tmp_path: Path, sound: float, times: list[int], share: float) -> None:
    webm(tmp_path / "a.webm", times, sound)
    data = (tmp_path / "a.webm").read_bytes()
    assert frames_in(tmp_path / "a.webm") == len(times)
    (tmp_path / "a.webm").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(Failure, match=r"a.webm cannot be read as video: it ends after \d.\d\d of [45].\d\d seconds"):
        frames_in(tmp_path / "a.webm")


@pytest.mark.parametrize(
    ("times", "sound", "options"),
    [
        pytest.param(list(range(0, 1000, 125)), 6.0, {}, id="sound that is longer than the pictures"),
        pytest.param(list(range(0, 5000, 125)), 0.5, {}, id="pictures that are longer than the sound"),
        pytest.param(VARIABLE, 0, {}, id="a variable frame rate"),
        pytest.param(VARIABLE, 5.0, {}, id="a variable frame rate and sound"),
        pytest.param(list(range(0, 5000, 125)), 5.0, {"live": "1"}, id="recorded live: it does not say how long it is"),
    ],
)
def test_a_whole_webm_is_read_to_its_end(tmp_path: Path, times: list[int], sound: float, options: dict[str, str]) -> None:
    webm(tmp_path / "a.webm", times, sound, **options)
    assert frames_in(tmp_path / "a.webm") == len(times)
