"""Reading files that were cut off, trimmed or begin late; webm says how long it is and not how many frames it has."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from videogen_models.video import encode_mp4
from videogen_trainer.failure import Failure
from videogen_trainer.synthetic import synthetic_clip
from videogen_trainer.video_reading import read_frames, read_timed_frames, seconds_of

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


LATE = 10_000  # thousandths of a second


def late_webm(folder: Path) -> Path:
    webm(folder / "a.webm", list(range(LATE, LATE + 4000, 125)), 0)
    return folder / "a.webm"


def test_a_webm_that_begins_late_and_was_cut_off_is_refused(tmp_path: Path) -> None:
    webm(tmp_path / "a.webm", [30 * LATE + time for time in range(0, 4000, 125)], 0)
    assert frames_in(tmp_path / "a.webm") == 32
    (tmp_path / "a.webm").write_bytes((data := (tmp_path / "a.webm").read_bytes())[: len(data) // 2])
    with pytest.raises(Failure, match=r"it ends after [12]\.\d\d of (3\.9|4\.0)\d seconds"):
        frames_in(tmp_path / "a.webm")


def late_mp4(folder: Path) -> Path:
    with av.open(str(folder / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(32):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 8 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + LATE // 125, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder / "a.mp4"


@pytest.mark.parametrize(("make", "seconds"), [(late_webm, 31 / 8 + 1 / 30), (late_mp4, 4)])  # webm: as long as a frame of 30 a second
def test_a_video_whose_first_frame_is_not_at_zero_is_as_long_and_timed_as_one_whose_is(
    tmp_path: Path, make: Callable[[Path], Path], seconds: float
) -> None:
    with av.open(str(path := make(tmp_path))) as container:
        assert container.start_time == LATE * 1000
    assert [time for time, _ in read_timed_frames(path)] == pytest.approx([number / 8 for number in range(32)], abs=1e-3)
    assert seconds_of(path) == pytest.approx(seconds, abs=1e-3)


def test_pictures_that_begin_after_the_sound_are_timed_by_it_as_what_is_said_is(tmp_path: Path) -> None:
    webm(tmp_path / "a.webm", list(range(1000, 2000, 125)), 2)
    times = [time for time, _ in read_timed_frames(tmp_path / "a.webm")]
    assert times == pytest.approx([1 + number / 8 for number in range(8)], abs=1e-2)
    assert seconds_of(tmp_path / "a.webm") == pytest.approx(0.875, abs=0.15)


def trimmed(first: float, seconds: float) -> bytes:
    """An mp4 of 5 s whose edit list shows a part of it, as `ffmpeg -c copy` and telephones trim; all 40 frames are still in it."""
    data = bytearray(encode_mp4(synthetic_clip(0, seed=9, frames=40, height=32, width=32).frames, 8))
    header, edits = data.index(b"mdhd"), data.index(b"elst")
    assert struct.unpack_from(">IIIi", data, edits + 4) == (0, 1, 5000, 0)  # one edit of 5 s, in thousandths, that begins at 0
    scale = struct.unpack_from(">I", data, header + 16)[0]
    struct.pack_into(">Ii", data, edits + 12, int(1000 * seconds), int(scale * first))
    return bytes(data)


@pytest.mark.parametrize(("first", "seconds", "frames"), [(3, 2, 16), (0, 2, 16), (1, 3, 24), (0, 5, 40)])
def test_a_trimmed_mp4_has_the_frames_that_it_shows(tmp_path: Path, first: float, seconds: float, frames: int) -> None:
    (tmp_path / "a.mp4").write_bytes(trimmed(first, seconds))
    assert frames_in(tmp_path / "a.mp4") == frames
    assert seconds_of(tmp_path / "a.mp4") == pytest.approx(seconds)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_trimmed_mp4_that_was_cut_off_is_refused(tmp_path: Path, first: int) -> None:
    """Its index stands in front, as in files for the web, and says more than there is."""
    (tmp_path / "whole.mp4").write_bytes(trimmed(first, 5 - first))
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as front:
        stream = front.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux():
            if packet.pts is not None:
                packet.stream = stream
                front.mux(packet)
    assert frames_in(tmp_path / "a.mp4") == 40 - 8 * first
    with av.open(str(tmp_path / "a.mp4")) as whole:
        end = whole.streams.video[0].index_entries[30].pos
    (tmp_path / "a.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:end])
    with pytest.raises(Failure, match=f"a.mp4 cannot be read as video: it ends after {30 - 8 * first} of {40 - 8 * first} frames"):
        frames_in(tmp_path / "a.mp4")


def music(path: Path) -> None:
    """A second of sound with a cover."""
    Image.new("RGB", (64, 64)).save(picture := io.BytesIO(), "JPEG")
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=8)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 64, "yuvj420p", Disposition.attached_pic
        heard = container.add_stream("aac", rate=48_000, layout="mono")
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 8)
        container.mux(packet)
        for number in range(50):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, SAMPLES), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 48_000, number * SAMPLES
            container.mux(heard.encode(silence))
        container.mux(heard.encode())


def test_music_with_a_cover_is_sound_only(tmp_path: Path) -> None:
    music(tmp_path / "a.mp4")
    with pytest.raises(Failure, match="it has no video stream, only a cover picture, audio"):
        frames_in(tmp_path / "a.mp4")
    with pytest.raises(Failure, match="it has no video stream"):
        seconds_of(tmp_path / "a.mp4")
