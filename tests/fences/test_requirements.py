"""docs/requirements.md: each row is there once, its fields are in the CRDs, its tests exist, and what is missing is said."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/requirements.md").read_text(encoding="utf-8")
NUMBERED = {"VF": 5, "AYL": 5, "T2V": 5, "DAT": 5, "RSK": 8}
PLAIN = ("VF-P", "AYL-P", "T2V-P", "Q1", "Q2", "Q3", "Q4", "MON", "CAD", "VER", "REG", "MET", "HUM", "RES", "SCL", "LAM", "PIPE")
IDS = {f"R-{part}-{number}" for part, count in NUMBERED.items() for number in range(1, count + 1)} | {f"R-{name}" for name in PLAIN}
ROWS = {
    cells[0]: cells
    for line in PAGE.splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5 and cells[0] in IDS
}
SCHEMAS = {
    made["spec"]["names"]["kind"]: made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for made in (yaml.load(path.read_text(), yaml.CSafeLoader) for path in sorted((ROOT / "crds").glob("*.yaml")))
}
OPEN_ROWS = PAGE.partition("## What does not work yet")[2]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def field(path: str) -> dict[str, Any] | None:
    """The schema at a path such as TrainingRun.spec.phases[].task, or None."""
    kind, *names = path.split(".")
    node: dict[str, Any] | None = SCHEMAS.get(kind)
    for name in names:
        node = (node or {}).get("properties", {}).get(name.removesuffix("[]"))
        if name.endswith("[]"):
            node = (node or {}).get("items")
    return node


def test_every_row_is_there_once() -> None:
    listed = re.findall(r"^\| (R-[\w-]+) \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(IDS)
    assert ROWS.keys() == IDS, "a row has five cells"


@pytest.mark.parametrize("row", sorted(IDS))
def test_what_a_row_names_exists(row: str) -> None:
    _, _, fields, tests, state = ROWS[row]
    assert state in {"yes", "in part", "not yet"}
    assert (fields == "-") == (tests == "-") == (state == "not yet"), "what does nothing names nothing, and everything else names both"
    assert [path for path in named(fields) if field(path) is None] == []
    for test in named(tests):
        file, _, name = test.partition("::")
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, test


@pytest.mark.parametrize("row", sorted(IDS))
def test_what_does_not_work_is_said_and_nothing_else(row: str) -> None:
    assert (ROWS[row][4] != "yes") == (row in said()), "rows in part and not yet stand in the last section, by their ids"


def said() -> set[str]:
    """Ids in the last section; `R-VF-1 to 5` are five."""
    spans = [(part, range(int(first), int(last) + 1)) for part, first, last in re.findall(r"R-(\w+)-(\d) to (\d)", OPEN_ROWS)]
    return set(re.findall(r"R-[A-Z0-9]+(?:-\w+)?", OPEN_ROWS)) | {f"R-{part}-{number}" for part, numbers in spans for number in numbers}
