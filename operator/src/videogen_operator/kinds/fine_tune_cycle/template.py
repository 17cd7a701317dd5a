"""A run from a cycle's template: placeholders filled in from a closed list, then the same validation as anybody's run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from videogen_api.fine_tune_cycle import PLACEHOLDERS, SET_BY_THE_CYCLE
from videogen_api.meta import ModelIdentity
from videogen_api.training_run import TrainingRunSpec

PLACEHOLDER = re.compile(r"\$\(([^()]*)\)")  # whatever stands in it: a name that is mistyped is no text
DEEPEST = 32  # levels; a TrainingRun has ten


def spec_of(
    template: Mapping[str, Any], model: ModelIdentity, init_from: Mapping[str, Any] | None, values: Mapping[str, str]
) -> dict[str, Any]:
    """The spec of a run. `values` are the placeholders that are known now.

    Raises ValueError with the path under spec.runTemplate.spec, what was found and what to do.
    """
    for name in SET_BY_THE_CYCLE:
        if name in template:
            raise ValueError(f"{name} is set by the cycle; leave it out")
    head = {"model": model.wire()} | ({"initFrom": dict(init_from)} if init_from else {})
    spec: dict[str, Any] = head | _filled(template, values, "")
    try:
        TrainingRunSpec.model_validate(spec)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        found = f", found {str(first['input'])[:100]!r}" if first["type"] != "missing" else ""
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}{found}") from None
    return spec


def _filled(item: Any, values: Mapping[str, str], path: str, level: int = 0) -> Any:
    if level > DEEPEST:
        raise ValueError(f"{path}: nested deeper than {DEEPEST} levels")
    if isinstance(item, Mapping):
        filled = {name: _filled(value, values, f"{path}.{name}".lstrip("."), level + 1) for name, value in item.items()}
        return {name: value for name, value in filled.items() if value is not _Absent}
    if isinstance(item, list):
        entries = [_filled(value, values, f"{path}.{number}", level + 1) for number, value in enumerate(item)]
        return [value for value in entries if value is not _Absent]
    return _text(item, values, path) if isinstance(item, str) else item


class _Absent:
    """In place of a field whose only placeholder has no value yet."""


def _text(text: str, values: Mapping[str, str], path: str) -> Any:
    for name in PLACEHOLDER.findall(text):
        if name not in PLACEHOLDERS:
            raise ValueError(f"{path}: there is no $({name}); there are {', '.join(f'$({one})' for one in PLACEHOLDERS)}")
        if name not in values:
            if PLACEHOLDER.fullmatch(text):
                return _Absent
            raise ValueError(
                f"{path}: $({name}) has no value before the first successful run; let it stand alone, then the field is left out"
            )
    return PLACEHOLDER.sub(lambda found: values[found[1]], text)
