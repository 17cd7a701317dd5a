"""Seals of records: what is changed in any way, or stands in another namespace, does not count."""

from pathlib import Path
from typing import Any

import pytest

from videogen_operator.seals import LEAST_BYTES, Keys, Seals, read

OLD, NEW = Seals({"key-1": b"1" * 32}), Seals({"key-1": b"1" * 32, "key-2": b"2" * 32})
RECORD: dict[str, Any] = {"key": "a" * 64, "run": "run", "phase": "train", "time": "2026-11-01T00:00:00Z", "report": {"lastStep": 100}}
SEALED = OLD.sealed(RECORD, "models")

CHANGED = {
    "a better result": SEALED | {"report": {"lastStep": 101}},
    "another key": SEALED | {"key": "b" * 64},
    "another run": SEALED | {"run": "other"},
    "one field more": SEALED | {"fromTheFuture": 1},
    "one field fewer": {name: value for name, value in SEALED.items() if name != "time"},
    "another MAC": SEALED | {"mac": "0" * 64},
    "a MAC that is no text": SEALED | {"mac": 7},
    "a MAC of other letters": SEALED | {"mac": "ä"},
    "no MAC": {name: value for name, value in SEALED.items() if name != "mac"},
    "no key ID": {name: value for name, value in SEALED.items() if name != "keyID"},
    "the ID of another key": SEALED | {"keyID": "key-2"},
}


def test_what_was_sealed_here_counts_here_alone() -> None:
    assert RECORD | {"keyID": "key-1", "mac": SEALED["mac"]} == SEALED
    assert OLD.problem(SEALED, "models") == ""
    assert "copied from elsewhere" in OLD.problem(SEALED, "others")


@pytest.mark.parametrize("record", CHANGED.values(), ids=CHANGED)
def test_what_was_changed_does_not_count(record: dict[str, Any]) -> None:
    assert NEW.problem(record, "models")


def test_a_key_is_exchanged_by_one_that_sorts_after_it() -> None:
    assert NEW.sealed(RECORD, "models")["keyID"] == "key-2"
    assert NEW.problem(SEALED, "models") == "", "the old one is accepted as long as it is there"
    assert OLD.problem(NEW.sealed(RECORD, "models"), "models").startswith(
        "it is sealed with key 'key-2', which this operator does not have"
    )
    assert Seals().problem(SEALED, "models").endswith("(it has none)")


def test_no_key_stands_in_what_is_logged() -> None:
    assert "1111" not in repr(NEW)


def test_keys_are_files_and_those_of_the_kubelet_are_none(tmp_path: Path) -> None:
    (tmp_path / "..2026_11_01").mkdir()
    (tmp_path / "..2026_11_01" / "key-1").write_bytes(b"1" * LEAST_BYTES)
    (tmp_path / "..data").symlink_to("..2026_11_01")
    (tmp_path / "key-1").symlink_to("..data/key-1")
    assert read(tmp_path) == OLD
    assert read(tmp_path / "absent") == read(None) == Seals()
    (tmp_path / "short").write_bytes(b"1" * (LEAST_BYTES - 1))
    with pytest.raises(ValueError, match=r"short in .* has 31 bytes; a key of records has at least 32"):
        read(tmp_path)


def test_keys_are_read_again_and_a_mistake_leaves_the_last_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    (tmp_path / "key-1").write_bytes(b"1" * 32)
    keys = Keys(tmp_path, clock=lambda: now[0])
    (tmp_path / "key-2").write_bytes(b"2" * 32)
    assert keys.seals() == OLD, "within a second"
    now[0] = 1.0
    assert keys.seals() == NEW
    (tmp_path / "key-3").write_bytes(b"short")
    now[0] = 2.0
    assert keys.seals() == NEW
    assert "key-3" in caplog.text
    (tmp_path / "key-3").unlink()
    (tmp_path / "key-1").unlink()
    now[0] = 3.0
    assert list(keys.seals().keys) == ["key-2"]
