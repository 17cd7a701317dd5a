"""Tables of videos, as CSV and as JSONL: any bytes give rows, rejections of rows with one sentence, or a failure of the table."""

from __future__ import annotations

from videogen_testing.fuzzing import fuzz, instrumented, scratch

with instrumented("videogen_trainer.curation", "csv"):
    from videogen_trainer.curation.sources import find_videos

from videogen_api.curation import Source
from videogen_trainer.curation.rejection import Rejection
from videogen_trainer.failure import Failure

STORAGE = scratch()
(FOLDER := STORAGE / "raw").mkdir()
for name in ("a.mp4", "b.webm"):
    (FOLDER / name).touch()
KINDS = ("csv", "jsonl")


def one(data: bytes) -> None:
    """The first bit says which kind of table it is."""
    if not data:
        return
    table = FOLDER / f"table.{KINDS[data[0] & 1]}"
    table.write_bytes(data[1:])
    refused: list[Rejection] = []
    try:
        videos = find_videos([Source(path="raw", table=table.name)], STORAGE, refused.append)
    except Failure:
        return
    assert len(videos) <= 2
    for video in videos:
        assert video.caption.encode().strip()
        assert video.path in {FOLDER / "a.mp4", FOLDER / "b.webm"}
    for rejection in refused:
        assert rejection.why.encode("utf-8", "replace")


CSV = b"path,caption,transcript,category,urgency,licence\n"
SEEDS = [
    b"\0" + CSV + b'a.mp4,a thing,"[{""start"": 0, ""end"": 1.5, ""text"": ""x""}]",flood,high,CC0\nb.webm,"two\nlines",,,,\n',
    b'\0\xef\xbb\xbfcaption,path\r\n"quoted ""word""",a.mp4\r\n"never ends,b.webm\r\n',
    b'\1{"path": "a.mp4", "caption": "a thing", "transcript": [{"start": 0, "end": 1, "text": "x"}]}\n\n{"path": "b.webm", "caption": "\\ud83d"}\n',
]
WORDS = [
    b'"',
    b'""',
    b"\r",
    b"\xff",
    b"\0",
    b"../raw/a.mp4",
    b"\\ud800",
    b"1e999",
    b"NaN",
    b"-0",
    b"[[[[[[[[",
    b'"transcript":',
    b"a.mp4,x\n",
]

if __name__ == "__main__":
    fuzz(one, SEEDS, WORDS)
