"""Scenarios: those that are brought along, and tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from videogen_api.emergency import Scenarios
from videogen_api.training_run import Reason
from videogen_trainer.emergency.catalogue import TYPES
from videogen_trainer.emergency.scenarios import Scenario, read_scenarios
from videogen_trainer.failure import Failure


def read(tmp_path: Path, name: str, text: str | bytes, **wanted: object) -> list[Scenario]:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_scenarios(Scenarios.model_validate({"table": name, **wanted}), tmp_path)


def test_a_hundred_are_brought_along_and_are_always_the_same(tmp_path: Path) -> None:
    found = read_scenarios(Scenarios(), tmp_path)
    assert len(found) == len({one.id for one in found}) == len({one.prompt for one in found}) == 100
    assert Counter(one.category for one in found) == dict.fromkeys((kind.category for kind in TYPES), 10)
    assert Counter(one.urgency for one in found) == {"immediate": 50, "expected": 50}
    assert found == read_scenarios(Scenarios(), tmp_path)
    assert found[0].prompt.startswith("brown flood water flows through a street")


def test_fewer_are_taken_at_even_distances(tmp_path: Path) -> None:
    found = read_scenarios(Scenarios(samples=20), tmp_path)
    assert len(found) == 20
    assert Counter(one.category for one in found) == dict.fromkeys((kind.category for kind in TYPES), 2)
    assert Counter(one.id[-1] for one in found) == dict.fromkeys("12345", 4), "all places"


ROW = '{"prompt": "a red square", "category": "flood", "urgency": "immediate", "id": "one"}'


def test_a_table_is_read_from_csv_and_jsonl_alike(tmp_path: Path) -> None:
    of_csv = read(
        tmp_path, "a.csv", '\ufeffprompt,category,urgency,id\r\na red square,flood,immediate,one\r\n"rain, heavy",flood,expected,\r\n'
    )
    of_json = read(tmp_path, "a.jsonl", f'{ROW}\n\n{{"prompt": "rain, heavy", "category": "flood", "urgency": "expected"}}\n')
    assert (
        of_csv
        == of_json
        == [
            Scenario(id="one", category="flood", urgency="immediate", prompt="a red square"),
            Scenario(id="line-0003", category="flood", urgency="expected", prompt="rain, heavy"),
        ]
    )


BAD: dict[str, tuple[str, str | bytes, str]] = {
    "no rows": ("a.jsonl", "\n", "it has no scenarios"),
    "a row without a prompt": ("a.csv", "prompt,category,urgency\n,flood,now\n", "line 2: prompt: Field required"),
    "an unknown column": ("a.csv", "prompt,category,urgency,place\nx,flood,now,Puri\n", "line 2: place: Extra inputs are not permitted"),
    "more cells than columns": ("a.csv", "prompt,category,urgency\nx,flood,now,more\n", r"line 2: \(more cells\)"),
    "a category with a capital": ("a.jsonl", ROW.replace("flood", "Flood"), "line 1: category: String should match"),
    "a name that is a path": ("a.jsonl", ROW.replace("one", "../one"), "line 1: id: String should match"),
    "one name twice": ("a.jsonl", f"{ROW}\n{ROW}", "line 2: the id 'one' was there before"),
    "no JSON": ("a.jsonl", f"{ROW}\n{{", "line 2 is no JSON"),
    "a list": ("a.jsonl", "[1]", "line 1: the row: Input should be"),
    "another encoding": ("a.csv", "prompt\nMünchen".encode("latin-1"), "it is not UTF-8: byte 8"),
}


@pytest.mark.parametrize("name, text, said", BAD.values(), ids=BAD.keys())
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    with pytest.raises(Failure, match=said) as caught:
        read(tmp_path, name, text)
    assert caught.value.reason is Reason.TABLE_INVALID
    assert caught.value.message.startswith(f"scenarios.table: {name}: ")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"raw/a\.csv: there is no such file in the storage"):
        read_scenarios(Scenarios(table="raw/a.csv"), tmp_path)
