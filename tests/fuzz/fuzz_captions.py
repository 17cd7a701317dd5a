"""Captions of text files and annotations of samples: any bytes give one line that can be seen, or a rejection with one sentence."""

from __future__ import annotations

from videogen_testing.fuzzing import fuzz, instrumented

with instrumented("videogen_trainer.curation", "videogen_trainer.dataset"):
    from videogen_trainer.curation.language import scripts_of
    from videogen_trainer.curation.video import Row, caption_of, json_object, row_of, video_of

from pathlib import Path

from videogen_trainer.curation.rejection import Rejected, plain

FOOTAGE = Path("a.mp4")


def one(data: bytes) -> None:
    """As the text file beside a video, and as the annotation of a sample."""
    for read in (told, annotated):
        try:
            caption = read(data)
        except Rejected:
            continue
        assert caption == " ".join(caption.split())
        assert "\0" not in caption
        assert caption.encode()
        assert all(ord(letter) >= 32 for letter in plain(caption))
        assert sum(scripts_of(caption).values()) <= len(caption)


def told(data: bytes) -> str:
    return caption_of(data, "a.txt")


def annotated(data: bytes) -> str:
    content = json_object(data, "a.json")
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if name in Row.model_fields} | {"path": "a.mp4"}
    video = video_of(row_of(content), FOOTAGE, "a.mp4", None)
    for segment in video.transcript:
        assert 0 <= segment.start <= segment.end < float("inf")
    return video.caption


SEEDS = [
    "A red square moves\r\nright.\u200d".encode(),
    "\ufeffबाढ़ की चेतावनी".encode(),
    "utf-16".encode("utf-16"),
    b'{"caption": "a thing", "transcript": [{"start": 0, "end": 1.5, "text": "x"}], "category": "flood", "licence": " CC0 "}',
]
WORDS = [
    b"\\ud83d",
    b"\\u0000",
    b"1e400",
    b"-1",
    b"NaN",
    b"\xe2\x80\xae",
    b"\x1b[2J",
    b"\xef\xbb\xbf",
    b"[" * 64,
    b'{"a":' * 16,
    b"\xed\xa0\x80",
]

if __name__ == "__main__":
    fuzz(one, SEEDS, WORDS)
