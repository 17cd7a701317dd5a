"""A shard of 2 KB whose headers lead a reader back to themselves must end, with one sentence about it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from videogen_api.curation import Source
from videogen_trainer.curation.rejection import Cause, Rejection
from videogen_trainer.curation.sources import find_videos

BLOCK = tarfile.BLOCKSIZE


def header(name: bytes, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A ustar header with the right sum, whatever its size says; below zero in base 256, as GNU tar writes large ones."""
    said = b"\xff" + (size % 256**11).to_bytes(11, "big") if size < 0 else b"%011o\0" % size
    fields = name.ljust(100, b"\0") + b"0000644\0" + 2 * b"0000000\0" + said + b"00000000000\0" + 8 * b" " + kind
    block = (fields.ljust(257, b"\0") + b"ustar\x0000").ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


GOOD = header(b"a.mp4", 5) + b"video".ljust(BLOCK, b"\0") + header(b"a.txt", 7) + b"caption".ljust(BLOCK, b"\0")
LONG = header(b"././@LongLink", 8, tarfile.GNUTYPE_LONGNAME) + b"bb.mp4".ljust(BLOCK, b"\0")
HOSTILE = {
    "back to the same header": header(b"b.mp4", -BLOCK),
    "back to the header before": header(b"b.json", -3 * BLOCK),
    "of no whole block": header(b"b.mp4", -1),
    "of a member with a long name": LONG + header(b"b", -BLOCK),
    "of what is no file": header(b"b", -BLOCK, tarfile.GNUTYPE_SPARSE),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_shard_with_a_size_below_zero_is_read_up_to_there(tmp_path: Path, hostile: bytes) -> None:
    (folder := tmp_path / "shards").mkdir()
    (folder / "a.tar").write_bytes(GOOD + hostile + bytes(2 * BLOCK))
    refused: list[Rejection] = []
    videos = find_videos([Source(path="shards", shards="a.tar")], tmp_path, refused.append)
    assert [(video.name, video.caption) for video in videos] == [("shards/a.tar/a.mp4", "caption")]
    (only,) = refused
    assert only.cause is Cause.SHARD_INVALID
    assert "is no whole tar file" in only.why
    assert "after 1 samples" in only.why
