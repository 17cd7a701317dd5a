"""Sealed folders that are named by their content: published again they are whole, whatever became of them."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from videogen_api.bundle import MANIFEST, canonical_json
from videogen_models import sealed
from videogen_models.sealed import CorruptError, describe, publish_content, staging, verify

SUFFIXES = (".json", ".txt")
CONTENT = {"a.txt": b"a" * 1000, "part/b.txt": b"b"}


def write(folder: Path) -> None:
    """The content, published as `folder`."""
    with staging(folder.parent) as staged:
        (staged / "part").mkdir()
        for name, data in CONTENT.items():
            (staged / name).write_bytes(data)
        files = describe(staged)
        (staged / MANIFEST).write_bytes(canonical_json([file.wire() for file in files]))
        publish_content(staged, folder, files, SUFFIXES)


def is_whole(folder: Path) -> bool:
    expected = folder.parent / "expected"
    if not expected.exists():
        write(expected)
    try:
        verify(folder, describe(expected), SUFFIXES)
    except CorruptError:
        return False
    return (folder / MANIFEST).is_file() and (folder / MANIFEST).read_bytes() == (expected / MANIFEST).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "content")
    return tmp_path / "content"


def turn_into_a_link(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    (folder.parent / "elsewhere/a.txt").unlink()
    folder.symlink_to(folder.parent / "elsewhere")


def turn_into_a_file(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.touch()


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "a.txt").write_bytes(b"a" * 999 + b"b"),
        lambda folder: (folder / "a.txt").write_bytes(b""),
        lambda folder: (folder / "part/b.txt").unlink(),
        lambda folder: (folder / "more.txt").touch(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_bytes(b"[]"),
        turn_into_a_link,
        turn_into_a_file,
        lambda folder: folder.rename(folder.parent / "elsewhere"),
    ],
    ids=["other bytes", "cut", "a missing file", "one more file", "no manifest", "other manifest", "a link", "a file", "gone"],
)
def test_damaged_content_that_is_published_again_is_whole_and_leaves_nothing_behind(folder: Path, harm: Callable[[Path], Any]) -> None:
    harm(folder)
    assert not (folder.is_dir() and is_whole(folder))
    write(folder)
    assert is_whole(folder)
    assert not folder.is_symlink()
    assert {path.name for path in folder.parent.iterdir()} <= {"content", "expected", "elsewhere"}


def test_intact_content_that_is_published_again_stays_and_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = (folder / "a.txt").stat(), []

    def counted(path: Path) -> str:
        read.append(path)
        return sum_of(path)

    sum_of = sealed.sha256_of
    monkeypatch.setattr(sealed, "sha256_of", counted)
    write(folder)
    assert (folder / "a.txt").stat() == before
    assert [path for path in read if path.is_relative_to(folder)] == [folder / "a.txt", folder / "part/b.txt"]


def test_content_that_the_system_does_not_let_us_read_is_not_taken_for_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(path: Path) -> str:
        if path.is_relative_to(folder):
            raise OSError(5, "Input/output error")
        return sum_of(path)

    sum_of = sealed.sha256_of
    monkeypatch.setattr(sealed, "sha256_of", failed)
    with pytest.raises(OSError, match="Input/output error"):
        write(folder)
    monkeypatch.undo()
    assert is_whole(folder)


@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_content_that_another_process_publishes_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """To bring what is staged to the disk takes minutes where it is large."""
    folder, settle = tmp_path / "content", sealed._settle
    if before == "damaged":
        write(folder)
        (folder / "a.txt").write_bytes(b"")

    def settled_late(staged: Path) -> None:
        settle(staged)
        monkeypatch.setattr(sealed, "_settle", settle)
        write(folder)
        others.append((folder / "a.txt").stat().st_ino)

    others: list[int] = []
    monkeypatch.setattr(sealed, "_settle", settled_late)
    write(folder)
    assert others == [(folder / "a.txt").stat().st_ino]
    assert [path.name for path in tmp_path.iterdir()] == ["content"]
    assert is_whole(folder)


def publishing(folder: Path) -> int:
    """The number of a process that publishes the content and ends with 0."""
    if child := os.fork():
        return child
    try:
        write(folder)
        os._exit(0)
    finally:
        os._exit(1)


def test_processes_that_publish_the_same_content_at_once_all_succeed(tmp_path: Path) -> None:
    for number in range(5):
        children = [publishing(tmp_path / str(number)) for _ in range(3)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        assert is_whole(tmp_path / str(number))


PUBLISHING = {function.__code__ for function in (publish_content, sealed._settle, sealed._move)}


def ends_at(line: int, folder: Path) -> bool:
    """Publish in another process, which is gone once it has come to the `line`-th line of publishing -> whether it came there."""
    left = [line]

    def trace(frame: types.FrameType, event: str, _: object) -> Any:
        if frame.f_code not in PUBLISHING:
            return None
        left[0] -= event == "line"
        if left[0] < 0:
            os._exit(1)
        return trace

    if (pid := os.fork()) == 0:
        sys.settrace(trace)
        try:
            write(folder)
            os._exit(0)
        finally:
            os._exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code != 2
    return code == 1


def test_a_crash_at_any_line_leaves_under_the_name_what_was_there_or_nothing_or_all(folder: Path) -> None:
    assert is_whole(folder)
    (folder / "a.txt").write_bytes(harmed := b"a" * 999 + b"b")
    line, found = 0, set()
    while ends_at(line, folder):
        line += 1
        state = "gone" if not folder.exists() else "whole" if is_whole(folder) else "damaged"
        assert state != "damaged" or (folder / "a.txt").read_bytes() == harmed
        found.add(state)
        write(folder)
        assert is_whole(folder)
        (folder / "a.txt").write_bytes(harmed)
    assert line > 20
    assert found == {"damaged", "gone", "whole"}
    assert is_whole(folder)
