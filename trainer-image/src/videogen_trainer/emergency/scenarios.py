"""Scenarios: what somebody would ask in an emergency. From a table in the storage, or those of the catalogue."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from videogen_api.emergency import Scenarios, Urgency
from videogen_api.meta import ShortName
from videogen_api.training_run import Reason
from videogen_trainer.emergency.catalogue import built_in_scenarios
from videogen_trainer.failure import Failure

LIMIT = 1000

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=64)]


class Scenario(BaseModel):
    """One request and what is said of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: _Name
    category: ShortName
    urgency: Urgency
    prompt: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


def read_scenarios(wanted: Scenarios, storage: Path) -> list[Scenario]:
    """The scenarios, at even distances if fewer are wanted. Raises Failure(TableInvalid) naming the line and what is accepted."""
    rows = _table(storage, wanted.table) if wanted.table else enumerate(built_in_scenarios(), 1)
    found: dict[str, Scenario] = {}
    for line, row in rows:
        scenario = _scenario(row, line, wanted.table or "built-in scenarios")
        if scenario.id in found:
            raise _invalid(wanted.table, f"line {line}: the id {scenario.id!r} was there before; every scenario needs its own")
        found[scenario.id] = scenario
    if not found:
        raise _invalid(wanted.table, "it has no scenarios; write one row for each, with prompt, category and urgency")
    count = min(wanted.samples or LIMIT, LIMIT, len(found))
    return [list(found.values())[place * len(found) // count] for place in range(count)]


def _scenario(row: Any, line: int, table: str) -> Scenario:
    values = {"id": f"line-{line:04}"} | {name: value for name, value in row.items() if value} if isinstance(row, dict) else row
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the row"
        raise _invalid(table, f"line {line}: {where}: {first['msg']}; accepted are prompt, category, urgency and id") from error


def _table(storage: Path, name: str) -> Iterator[tuple[int, Any]]:
    path = storage / name
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise _invalid(name, "there is no such file in the storage; put it there or correct scenarios.table") from None
    except UnicodeDecodeError as error:
        raise _invalid(name, f"it is not UTF-8: byte {error.start}; save it as UTF-8") from error
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text), restkey="(more cells)")
        yield from ((reader.line_num, row) for row in reader)
        return
    for line, content in enumerate(text.splitlines(), 1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except ValueError as error:
                raise _invalid(name, f"line {line} is no JSON: {error}") from error


def _invalid(table: str | None, said: str) -> Failure:
    return Failure(Reason.TABLE_INVALID, f"scenarios.table: {table}: {said}")
