"""Where videos and captions come from: tables of them, and one bad file or row that does not end the work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from videogen_api.curation import Source
from videogen_api.training_run import Reason
from videogen_testing.curation import curated, job, silent, write_video
from videogen_trainer.curate import run
from videogen_trainer.curation.rejection import Cause, Rejection
from videogen_trainer.curation.sources import find_videos
from videogen_trainer.curation.video import TEXT_BYTES, Video
from videogen_trainer.failure import Failure
from videogen_trainer.video_reading import read_frames

TRANSCRIPT = [
    {"start": 0, "end": 0.5, "text": "Good evening"},
    {"start": 1.2, "end": 3, "text": "the news"},
    {"start": 9, "end": 10, "text": "x"},
]


def table(folder: Path, *rows: dict[str, Any] | bytes) -> None:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / "videos.jsonl").write_bytes(b"\n".join(lines))


def found_in(storage: Path, name: str) -> tuple[list[Video], list[Rejection]]:
    rejected: list[Rejection] = []
    return find_videos([Source(path="raw", table=name)], storage, rejected.append), rejected


def test_csv_and_jsonl_tables_say_the_same(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a/one.mp4", 8, caption=None)
    row = {
        "path": "a/one.mp4",
        "caption": 'rain, "heavy"\nover Kochi',
        "transcript": TRANSCRIPT,
        "urgency": "high",
        "licence": "GODL-India",
    }
    table(tmp_path / "raw", row)
    text = json.dumps(TRANSCRIPT).replace('"', '""')
    cells = (
        f'\ufeffpath,caption,transcript,category,urgency,licence\r\na/one.mp4,"rain, ""heavy""\nover Kochi","{text}",,high,GODL-India\r\n'
    )
    (tmp_path / "raw/videos.csv").write_text(cells, encoding="utf-8", newline="")
    (of_jsonl, no_errors), (of_csv, none_either) = found_in(tmp_path, "videos.jsonl"), found_in(tmp_path, "videos.csv")
    assert no_errors == none_either == []
    assert of_jsonl == of_csv
    assert (of_csv[0].caption, of_csv[0].category, of_csv[0].urgency) == ('rain, "heavy" over Kochi', None, "high")


def test_annotations_reach_the_dataset_and_a_clip_has_what_is_said_during_it(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a.mp4", 16, caption=None)  # 8 frames a second
    write_video(tmp_path / "raw/b.mp4", 8, caption=None, seed=1)
    notes = {"category": "flood", "urgency": "high", "licence": "GODL-India", "transcript": TRANSCRIPT}
    table(tmp_path / "raw", {"path": "a.mp4", "caption": "a flood"} | notes, {"path": "b.mp4", "caption": "a speech"})
    wanted = job(held_out_percent=0)
    assert wanted.curate is not None
    source = Source(path="raw", table="videos.jsonl", licence="CC-BY-4.0")
    dataset = curated(tmp_path, wanted.model_copy(update={"curate": wanted.curate.model_copy(update={"sources": [source]})}))
    said = [[(part.start, part.end, part.text) for part in record.transcript or []] for record in dataset.records]
    assert said == [[(0, 0.5, "Good evening")], [(0.2, 0.875, "the news")], []]
    statistics = dataset.manifest.statistics
    assert statistics.licences == {"CC-BY-4.0": 1, "GODL-India": 2}
    assert statistics.categories == {"": 1, "flood": 2}
    assert (statistics.with_transcript, statistics.urgencies) == (2, {"": 1, "high": 2})


def test_a_transcript_is_kept_of_a_video_whose_first_frame_is_not_at_zero(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/early.mp4", 16, caption=None)
    with av.open(str(tmp_path / "raw/early.mp4")) as early, av.open(str(tmp_path / "raw/late.mp4"), "w") as late:
        stream = late.add_stream_from_template(early.streams.video[0])
        for packet in early.demux():
            if packet.pts is not None and packet.dts is not None and packet.time_base:
                packet.pts, packet.dts = packet.pts + int(10 / packet.time_base), packet.dts + int(10 / packet.time_base)
                packet.stream = stream
                late.mux(packet)
    assert next(av.open(str(tmp_path / "raw/late.mp4")).decode(video=0)).time == 10
    table(tmp_path / "raw", {"path": "late.mp4", "caption": "a speech", "transcript": TRANSCRIPT})
    wanted = job(held_out_percent=0)
    assert wanted.curate is not None
    source = Source(path="raw", table="videos.jsonl")
    dataset = curated(tmp_path, wanted.model_copy(update={"curate": wanted.curate.model_copy(update={"sources": [source]})}))
    said = [[(part.start, part.end, part.text) for part in record.transcript or []] for record in dataset.records]
    assert said == [[(0, 0.5, "Good evening")], [(0.2, 0.875, "the news")]]


GOOD = {"path": "a.mp4", "caption": "a thing"}


@pytest.mark.parametrize(
    ("row", "cause", "words"),
    [
        (b'{"path": ', Cause.TABLE_INVALID, "raw/videos.jsonl:2: the line is no JSON"),
        (b"[1]", Cause.TABLE_INVALID, "raw/videos.jsonl:2: the line is no JSON object, but list"),
        (b'{"path": "b.mp4", "caption": "Fu\xdfball"}', Cause.TABLE_INVALID, "raw/videos.jsonl:2: the line is not UTF-8"),
        ({"path": "b.mp4"}, Cause.TABLE_INVALID, "raw/videos.jsonl:2: caption: Field required"),
        ({"path": "b.mp4", "caption": "b", "colour": "red"}, Cause.TABLE_INVALID, "2: colour: .*known are path, caption"),
        (
            {"path": "b.mp4", "caption": "b", "transcript": [{"start": 2, "end": 1, "text": "x"}]},
            Cause.TABLE_INVALID,
            "end 1.0 is before start 2.0",
        ),
        ({"path": "../../etc/b.mp4", "caption": "b"}, Cause.TABLE_INVALID, "it must name an .mp4 or .webm file below raw"),
        ({"path": "b.avi", "caption": "b"}, Cause.TABLE_INVALID, "it must name an .mp4 or .webm file below raw"),
        ({"path": "b\0.mp4", "caption": "b"}, Cause.TABLE_INVALID, "is no file name"),
        ({"path": "b" * 300 + ".mp4", "caption": "b"}, Cause.TABLE_INVALID, "is no file name"),
        ({"path": "absent.mp4", "caption": "b"}, Cause.VIDEO_MISSING, "2: there is no video 'absent.mp4'"),
        ({"path": "a.mp4", "caption": "b"}, Cause.TABLE_INVALID, "a.mp4 is in line 1 too"),
        ({"path": "./a.mp4", "caption": "b"}, Cause.TABLE_INVALID, "a.mp4 is in line 1 too"),
        ({"path": "x/../a.mp4", "caption": "b"}, Cause.TABLE_INVALID, "a.mp4 is in line 1 too"),
        ({"path": "../raw/a.mp4", "caption": "b"}, Cause.TABLE_INVALID, "a.mp4 is in line 1 too"),
        ({"path": "b.mp4", "caption": "  "}, Cause.CAPTION_MISSING, "2: the caption of 'b.mp4' is empty"),
        ({"path": "b.mp4", "caption": "\x07\x1b \x01"}, Cause.CAPTION_MISSING, "2: the caption of 'b.mp4' has nothing that can be seen"),
        (
            {"path": "b.mp4", "caption": "\u200b\ufeff\u2060"},
            Cause.CAPTION_MISSING,
            "2: the caption of 'b.mp4' has nothing that can be seen",
        ),
        (
            {"path": "b.mp4", "caption": "a cat \ud83d"},
            Cause.CAPTION_MISSING,
            r"2: the caption of 'b.mp4' has half of a character \(.ud83d\)",
        ),
        ({"path": "b.mp4", "caption": "a cat", "\ud83d": 1}, Cause.TABLE_INVALID, "2: row: .*unicode.*, found .*ud83d.; known"),
        ({"path": "\ud83d.mp4", "caption": "a cat"}, Cause.TABLE_INVALID, "2: path: .*found"),
    ],
)
def test_a_bad_row_is_rejected_with_file_and_line_and_the_others_go_on(tmp_path: Path, row: Any, cause: Cause, words: str) -> None:
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"raw/{name}.mp4", 2, caption=None)
    (tmp_path / "raw/x").mkdir()
    table(tmp_path / "raw", GOOD, row, {"path": "c.mp4", "caption": "another"})
    videos, rejected = found_in(tmp_path, "videos.jsonl")
    assert [video.name for video in videos] == ["raw/a.mp4", "raw/c.mp4"]
    assert [rejection.cause for rejection in rejected] == [cause]
    with pytest.raises(Failure, match=words):
        raise Failure(Reason.TABLE_INVALID, rejected[0].why)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"path,text\na.mp4,x\n", r"t.csv:1 has the column 'text'; known are path, caption, transcript"),
        ("t.csv", b"path,caption,caption\na.mp4,x,y\n", r"t.csv:1 has the column 'caption' twice; keep one of them"),
        ("t.csv", b"path\na.mp4\n", r"t.csv:1 has no column 'caption'"),
        ("t.csv", b"", r"t.csv:1 has no column 'path'"),
        ("t.csv", b"path,caption,Fu\xdfball\na.mp4,x,y\n", r"t.csv:1 is not UTF-8 \(byte 0xdf\)"),
        ("t.csv", "path,caption\na.mp4,x\n".encode("utf-16"), r"t.csv:1 is not UTF-8 \(byte 0xff\)"),
        ("t.csv", b'path,"caption"s\na.mp4,x\n', r"t.csv:1 is no CSV: .*; quote cells that have commas or quotes"),
        ("t.csv", b"path,caption\n", r"t.csv has no rows"),
        ("t.jsonl", b"\n\n", r"t.jsonl has no rows"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / name).write_bytes(content)
    with pytest.raises(Failure, match=words) as caught:
        found_in(tmp_path, name)
    assert caught.value.reason is Reason.TABLE_INVALID


def test_a_row_of_a_csv_with_bad_bytes_is_rejected_with_its_line_and_the_others_go_on(tmp_path: Path) -> None:
    for name in "abcd":
        write_video(tmp_path / f"raw/{name}.mp4", 2, caption=None)
    rows = [b"a.mp4,one", b"b.mp4,Fu\xdfball", b'c.mp4,"\xe2\x82\n"', b"d\xff.mp4,x", "d.mp4,\N{DEVANAGARI LETTER KA}".encode()]
    (tmp_path / "raw/t.csv").write_bytes(b"\n".join([b"path,caption", *rows]))
    videos, rejected = found_in(tmp_path, "t.csv")
    assert [(video.name, video.caption) for video in videos] == [("raw/a.mp4", "one"), ("raw/d.mp4", "\N{DEVANAGARI LETTER KA}")]
    assert {rejection.cause for rejection in rejected} == {Cause.TABLE_INVALID}
    assert sorted(rejection.why for rejection in rejected) == [
        f"raw/t.csv:{line}: the row is not UTF-8 (byte {byte}); save it as UTF-8" for line, byte in ((3, "0xdf"), (5, "0xe2"), (6, "0xff"))
    ]


BAD_ROWS = ['b.mp4,"b"x', 'b.mp4,"b', 'b.mp4,"b\n"x', 'b.mp4,"b\n\n', pytest.param("b.mp4," + "b" * (2 * TEXT_BYTES), id="without end")]


@pytest.mark.parametrize("bad", BAD_ROWS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_row_of_a_csv_with_a_bad_quote_is_rejected_with_its_line_and_the_others_go_on(tmp_path: Path, bad: str, end: str) -> None:
    """Also if the quote has no end, and takes in all rows after it."""
    for name in "abcd":
        write_video(tmp_path / f"raw/{name}.mp4", 2, caption=None)
    rows = ["path,caption", "", 'a.mp4,"one\nand one"', bad, "c.mp4,three", 'd.mp4,"four"']
    (tmp_path / "raw/t.csv").write_text("\n".join(rows), newline=end)
    videos, rejected = found_in(tmp_path, "t.csv")
    assert [(video.name, video.caption) for video in videos] == [
        ("raw/a.mp4", "one and one"),
        ("raw/c.mp4", "three"),
        ("raw/d.mp4", "four"),
    ]
    assert {rejection.cause for rejection in rejected} == {Cause.TABLE_INVALID}
    assert rejected[0].why.startswith("raw/t.csv:5: the row is no CSV: ")
    assert all("raw/t.csv:6: " in rejection.why for rejection in rejected[1:])  # what is left of a row of two lines


def test_a_line_without_end_inside_a_bad_row_of_a_csv_takes_no_other_row_with_it(tmp_path: Path) -> None:
    """Only what ends lines for files ends them, not U+2028, as it does for `str.splitlines`."""
    for name in "ab":
        write_video(tmp_path / f"raw/{name}.mp4", 2, caption=None)
    (tmp_path / "raw/t.csv").write_text('path,caption\na.mp4,"one\nx,' + "\u2028x" * TEXT_BYTES + "\nb.mp4,two\n")
    videos, rejected = found_in(tmp_path, "t.csv")
    assert [video.name for video in videos] == ["raw/b.mp4"]
    assert sorted(rejection.source for rejection in rejected) == ["raw/t.csv:2", "raw/t.csv:3"]


def test_a_row_of_a_csv_with_too_many_cells_is_rejected(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a.mp4", 2, caption=None)
    (tmp_path / "raw/t.csv").write_text("path,caption\na.mp4,one, two\n")
    videos, rejected = found_in(tmp_path, "t.csv")
    assert videos == []
    assert "raw/t.csv:2: the row has more cells than the header" in rejected[0].why


def latin(storage: Path) -> None:
    (storage / "raw/bad.txt").write_bytes("Fußball".encode("latin-1"))


def empty(storage: Path) -> None:
    (storage / "raw/bad.mp4").write_bytes(b"")


def halved(storage: Path) -> None:
    data = (storage / "raw/bad.mp4").read_bytes()
    (storage / "raw/bad.mp4").write_bytes(data[: len(data) // 2])


def damaged_in_the_middle(storage: Path) -> None:
    """Its first part can be read, and several clips fit into it."""
    write_video(storage / "raw/bad.mp4", 100)
    data = bytearray((storage / "raw/bad.mp4").read_bytes())
    middle = data.index(b"mdat") + 2000
    data[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    (storage / "raw/bad.mp4").write_bytes(bytes(data))
    with pytest.raises(Failure):
        for number, _ in enumerate(read_frames(storage / "raw/bad.mp4")):
            assert number < 99
    assert number > 8


@pytest.mark.parametrize(
    ("harm", "cause"),
    [(latin, "CaptionMissing"), (empty, "VideoUnreadable"), (halved, "VideoUnreadable"), (damaged_in_the_middle, "VideoUnreadable")],
)
def test_one_bad_file_of_six_is_rejected_and_the_others_are_the_version(tmp_path: Path, harm: Callable[[Path], None], cause: str) -> None:
    for number, name in enumerate(("a", "b", "bad", "c", "d", "e")):
        write_video(tmp_path / f"raw/{name}.mp4", 8, seed=number)
    harm(tmp_path)
    report = run(job(), tmp_path, silent())
    assert report.reason is Reason.COMPLETED
    assert (report.datasets[0].clips, report.datasets[0].rejected) == (5, 1)
    assert f"rejected 1 {cause} (" in report.message
    assert "raw/bad" in report.message
