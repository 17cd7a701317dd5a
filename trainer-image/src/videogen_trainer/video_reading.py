"""Reading videos, from files or out of tar files: frames one by one, and frames fitted to a size.

Memory is bounded by one frame of `PIXELS`, whatever the file says of itself. Not here: what becomes of the frames (`curate.py`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Picture = NDArray[np.uint8]
PIXELS = 8192 * 4320  # of one frame: 8K and no more
# What is named like a video may be a playlist that names other files or hosts, and ffmpeg would read them.
# Of ffmpeg's 300 video decoders these: what cameras, phones, editors and browsers write. Sound is not decoded.
_CODECS = "h264,hevc,vp8,libvpx,vp9,libvpx-vp9,av1,libdav1d,libaom-av1,mpeg4,mpeg2video,mpeg1video,mjpeg,prores,dnxhd,h263,png"
_OPTIONS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm", "codec_whitelist": _CODECS}
TRUNCATED = 0.9  # a file that has less than this share of the frames or the seconds that it announces has lost its end


@dataclass(frozen=True, slots=True)
class Member:
    """A video that lies in a tar file: `size` bytes from `offset` on. It is read where it lies, nothing is unpacked."""

    path: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}/{self.name}"


Footage = Path | Member


class _Window(io.RawIOBase):
    """A part of a file, to read and to seek in."""

    def __init__(self, member: Member) -> None:
        self._file = member.path.open("rb")
        self._start, self._size, self._at = member.offset, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        room = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._at)
        count = self._file.readinto(room[: max(0, min(len(room), self._size - self._at))])
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_bytes(video: Footage) -> io.BufferedReader:
    """The video's bytes. Raises FileNotFoundError."""
    return video.open("rb") if isinstance(video, Path) else io.BufferedReader(_Window(video))


def digest_of(video: Footage) -> str:
    """SHA-256 of the video's bytes, in hex: the same for a file and for its copy in a tar file.

    Raises FileNotFoundError, PermissionError, and for other errors of the volume Failure(VideoUnreadable).
    """
    with _named(video), open_bytes(video) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_frames(path: Footage) -> Iterator[Picture]:
    """Frames as `read_timed_frames` gives them, without their times."""
    return (picture for _, picture in read_timed_frames(path))


def read_timed_frames(path: Footage) -> Iterator[tuple[float | None, Picture]]:
    """Frames uint8 [H, W, 3] (RGB, upright) of the first video stream, each with its time in seconds if the file says it.

    Times count from the file's first picture or sound, as players and transcripts do: recordings that were cut may begin at any time.
    Raises Failure(VideoUnreadable) naming the file if it is empty, corrupt, truncated or has no video.
    """
    with _opened(path) as (container, stream):
        count, seconds, start = 0, 0.0, max(0, container.start_time or 0) / av.time_base
        converter = VideoReformatter()  # one for all: to make its tables takes longer than to use them
        for packet in container.demux():
            seconds = max(seconds, _end_of(packet))
            for frame in stream.decode(packet) if packet.stream is stream else ():
                if frame.is_corrupt:
                    raise unreadable(path, f"frame {count} is damaged")
                _check_size(path, frame.width, frame.height)
                yield None if frame.time is None else frame.time - start, _upright(frame, converter)
                count += 1
        if count == 0:
            raise unreadable(path, "it has no frames")
        if count < TRUNCATED * (shown := _shown(stream)):
            raise unreadable(path, f"it ends after {count} of {shown} frames")
        announced = (container.duration or 0) / av.time_base - start  # most webm files say when they end, not how long they are
        if not stream.frames and seconds - start < TRUNCATED * announced:
            raise unreadable(path, f"it ends after {seconds - start:.2f} of {announced:.2f} seconds")


def size_of(path: Footage) -> tuple[int, int]:
    """Width and height of the first video stream as the file's header says them. Raises Failure(VideoUnreadable)."""
    with _opened(path) as (_, stream):
        return stream.width, stream.height


def seconds_of(path: Footage) -> float:
    """Length of the first video stream, from its or the file's header or, where those do not say it, from its packets' times.

    Nothing is decoded. Raises Failure(VideoUnreadable).
    """
    with _opened(path) as (container, stream):
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if container.duration and (stream.start_time or 0) <= 0:  # else it may be when the video ends
            return float(container.duration / av.time_base)
        first, last = None, 0
        for packet in container.demux(stream):
            if packet.pts is not None:
                first = packet.pts if first is None else min(first, packet.pts)
                last = max(last, packet.pts + (packet.duration or 0))
        return float((last - first) * stream.time_base) if first is not None and stream.time_base else 0.0


@contextmanager
def _named(video: Footage) -> Iterator[None]:
    """Errors of the volume name no file, as a bad sector does. That it is gone or closed to us says who looks for it."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise unreadable(video, error.strerror or str(error)) from error


@contextmanager
def _opened(path: Footage) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    with _named(path), open_bytes(path) as file:
        if file.seek(0, io.SEEK_END) == 0:
            raise unreadable(path, "it is empty")
        file.seek(0)
        try:
            with av.open(str(path) if isinstance(path, Path) else file, options=_OPTIONS) as container:
                if (stream := next((each for each in container.streams.video if not _is_cover(each)), None)) is None:
                    raise unreadable(path, "it has no video stream, only " + (_kinds(container) or "nothing"))
                if stream.codec_context is None:
                    raise unreadable(path, "its pictures are in a format that there is no decoder for")
                if (codec := stream.codec_context.codec.name) not in _CODECS.split(","):
                    raise unreadable(path, f"its pictures are in {codec}; accepted are {_CODECS.replace(',', ', ')}: convert it")
                _check_size(path, stream.width, stream.height)
                stream.codec_context.options = {
                    "max_pixels": str(PIXELS),
                    "codec_whitelist": _CODECS,
                }  # the frames may be larger than the header says
                yield container, stream
        except (av.FFmpegError, UnicodeDecodeError) as error:
            raise unreadable(path, getattr(error, "strerror", None) or str(error)) from error


def _check_size(path: Footage, width: int, height: int) -> None:
    if width * height > PIXELS:
        raise unreadable(path, f"it has frames of {width} x {height}, more than the {PIXELS:,} pixels of 8K")


def fit(picture: Picture, resolution: Resolution) -> Picture:
    """The largest middle part [H, W, 3] with the resolution's aspect ratio, resized to it by an anti-aliased bicubic filter."""
    height, width = picture.shape[:2]
    scale = min(height / resolution.height, width / resolution.width)
    tall, wide = resolution.height * scale, resolution.width * scale
    top, left = (height - tall) / 2, (width - wide) / 2
    image = Image.fromarray(picture).resize(
        (resolution.width, resolution.height), Image.Resampling.BICUBIC, box=(left, top, left + wide, top + tall)
    )
    return np.asarray(image, dtype=np.uint8)


def unreadable(path: Footage, why: str) -> Failure:
    """The failure of a video that cannot be decoded."""
    return Failure(Reason.VIDEO_UNREADABLE, f"{path} cannot be read as video: {why}; replace the file or take it out of the source")


def _upright(frame: av.VideoFrame, converter: VideoReformatter) -> Picture:
    picture = converter.reformat(frame, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, k=round(frame.rotation / 90)))  # phones store the turn beside the picture


def _end_of(packet: av.Packet[av.stream.Stream]) -> float:
    """When a packet of pictures, sound or anything ends, in seconds.

    A webm says only how long all of it is, so all of it is looked at: sound may be longer than pictures.
    """
    return float((packet.pts + (packet.duration or 0)) * packet.time_base) if packet.pts is not None and packet.time_base else 0.0


def _shown(stream: av.VideoStream) -> int:
    """How many frames an mp4 announces, without those that its edit list hides (ISO/IEC 14496-12, 8.6.6): a trim may leave them in.

    0 for files that announce none, such as webm and mp4 in fragments.
    """
    return sum(not entry.is_discard for entry in stream.index_entries) if stream.frames else 0


def _kinds(container: av.container.InputContainer) -> str:
    return ", ".join(sorted({"a cover picture" if _is_cover(stream) else stream.type for stream in container.streams}))


def _is_cover(stream: av.stream.Stream) -> bool:
    """Whether it is the picture that music players show; it looks like a video of one frame."""
    return bool(stream.disposition & Disposition.attached_pic)
