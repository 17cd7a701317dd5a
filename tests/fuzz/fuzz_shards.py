"""Webdataset shards: tar files whose headers are whole but say anything, and files that are none."""

from __future__ import annotations

import io

from videogen_testing.fuzzing import fuzz, instrumented, scratch

with instrumented("videogen_trainer.curation", "tarfile"):
    import tarfile

    from videogen_trainer.curation.sources import find_videos

from videogen_api.curation import Source
from videogen_trainer.curation.rejection import Rejection
from videogen_trainer.failure import Failure
from videogen_trainer.video_reading import Member

STORAGE = scratch()
(STORAGE / "shards").mkdir()
SHARD = STORAGE / "shards" / "a.tar"
SOURCES = [Source(path="shards", shards="*.tar")]
BLOCK = tarfile.BLOCKSIZE
PLAIN, MEMBERS = b"\0", b"\1"
MEMBER = 15  # bytes before the name: kind, size field, and lengths of name and content


def header(kind: bytes, size: bytes, name: bytes) -> bytes:
    """A header with the right sum, which chance does not find: POSIX.1-2001, ustar interchange format."""
    fields = name[:100].ljust(100, b"\0") + b"0000644\0" + 2 * b"0000000\0" + size + b"00000000000\0" + 8 * b" " + kind
    block = (fields.ljust(257, b"\0") + b"ustar\x0000").ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def archive_of(data: bytes) -> bytes:
    """A tar file of members, each written as its kind, the 12 bytes of its size, lengths of name and content, and these."""
    archive = b""
    while len(data) >= MEMBER:
        kind, size, (names, contents) = data[:1], data[1:13], data[13:15]
        name, content = data[MEMBER : MEMBER + names], data[MEMBER + names : MEMBER + names + contents]
        data = data[MEMBER + names + contents :]
        archive += header(kind, size, name) + content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0")
    return archive + bytes(2 * BLOCK)


def one(data: bytes) -> None:
    SHARD.write_bytes(archive_of(data[1:]) if data[:1] == MEMBERS else data[1:])
    size, refused = SHARD.stat().st_size, list[Rejection]()
    try:
        videos = find_videos(SOURCES, STORAGE, refused.append)
    except Failure:
        return
    for video in videos:
        assert video.caption.encode().strip()
        assert isinstance(video.path, Member)
        assert 0 <= video.path.offset <= video.path.offset + video.path.size <= size
    for rejection in refused:
        assert rejection.why.encode()


def member(name: bytes, content: bytes, kind: bytes = b"0") -> bytes:
    return kind + b"%011o\0" % len(content) + bytes([len(name), len(content)]) + name + content


def real(form: int) -> bytes:
    """A shard as tarfile writes it."""
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:", format=form) as archive:
        for name, content in (("a.mp4", b"video"), ("a.txt", b"caption"), ("d" * 90 + "/" + "k" * 40 + ".json", b'{"caption": "c"}')):
            (info := tarfile.TarInfo(name)).size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()[: 12 * BLOCK]


GOOD = member(b"a.mp4", b"video") + member(b"a.txt", b"a caption")
SEEDS = [
    MEMBERS + GOOD,
    MEMBERS + member(b"b.webm", b"video") + member(b"b.json", b'{"caption": "c", "transcript": [{"start": 0, "end": 1.5, "text": "x"}]}'),
    MEMBERS + member(b"@LongLink", b"long/name.mp4\0", b"L") + GOOD,
    MEMBERS + member(b"x", b"14 path=a.txt\n11 size=9\n", b"x") + GOOD,
    MEMBERS + member(b"x", b"22 GNU.sparse.size=99\n", b"g") + GOOD + member(b"a.mp4", b"", b"2") + member(b"s", b"", b"S"),
    *(PLAIN + real(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
]
WORDS = [
    b"\xff" * 10 + b"\xfe\0",
    b"\x80" + b"\0" * 10 + b"\1",
    b"77777777777\0",
    b"GNU.sparse.map=",
    b"GNU.sparse.major=1",
    b"\n11 size=-512\n",
    b"../",
    b"{",
]

if __name__ == "__main__":
    fuzz(one, SEEDS, WORDS)
