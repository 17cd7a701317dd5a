"""Every field of a kind's spec, and values that its schema allows: what anybody may write, chosen by chance.

Texts with a pattern are words of a small pool that fit it, so that they often name what there is. Rules between fields (CEL) are not
looked at: an edit that breaks one is the API server's to refuse.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

from videogen_testing.runs import DIGEST

EACH = "[]"  # in a path: any element of the list
ABSENT = object()
Schema = dict[str, Any]
VERSIONS = ("1.0.0", "1.1.0", "2.0.0", "0.0.1", "9999.9999.9999")
NAMES = ("models", "standard", "express", "clips", "base", "hindi", "train", "release", "other", "run-0")
WORDS = (
    *VERSIONS,
    *NAMES,
    "",
    "words of a person",
    "नमस्ते",
    DIGEST,
    "sha256:" + "b" * 64,
    "pib-videogen-videofusion-v1.0.0-base",
    "0",
    "0.5",
    "1",
    "200",
    "-1",
    "2",
    "500m",
    "4Gi",
    "2026-11-01T00:00:00Z",
    "2126-11-01T00:00:00+05:30",
    "raw/clips",
    "a-*.tar",
    "captions.csv",
    "tables/captions.jsonl",
    "https://tracking.example:5000",
    "* * * * *",
    "0 3 * * *",
    "0 0 30 2 *",
    "Etc/UTC",
    "Asia/Kolkata",
    "$(version)",
    "x" * 20,
)
KEYS = ("cpu", "memory", "nvidia.com/gpu", "example.org/disk")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a spec, or one element of a list, by its path."""

    path: tuple[str, ...]
    required: bool
    schema: Schema

    def __str__(self) -> str:
        return "spec." + ".".join(self.path).replace(f".{EACH}", EACH)


def fields(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[Field]:
    """All of them, those in lists and objects too."""
    for name, one in schema.get("properties", {}).items():
        yield Field((*path, name), name in schema.get("required", ()), one)
        yield from fields(one, (*path, name))
    if schema["type"] == "array":
        yield Field((*path, EACH), False, schema["items"])
        yield from fields(schema["items"], (*path, EACH))


class LegalValues:
    """By chance, the same for the same chance."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def edited(self, spec: Mapping[str, Any], schema: Schema, field: Field) -> tuple[dict[str, Any], Any]:
        """The spec with another value in this field, and the value; ABSENT takes the field away. What lies above it is made if it is absent."""
        changed = deepcopy(dict(spec))
        target: Any = changed
        for part, after in zip(field.path[:-1], field.path[1:], strict=True):
            schema = schema["items"] if part == EACH else schema["properties"][part]
            if part == EACH:
                target = self._element(target, schema, after)
            else:
                target = target.setdefault(part, [] if after == EACH else self.of(schema, optional=0.0))
        value = ABSENT if not field.required and self._chance.random() < 0.25 else self.of(field.schema)
        self._put(target, field.path[-1], value)
        return changed, value

    def of(self, schema: Schema, optional: float = 0.3) -> Any:
        """A value; `optional` is the share of the fields with which an object is given beyond those that it must have."""
        if "enum" in schema:
            return self._chance.choice(schema["enum"])
        if schema.get("x-kubernetes-int-or-string"):
            return self._chance.choice([1, self._text(schema)])
        match schema["type"]:
            case "boolean":
                return self._chance.random() < 0.5
            case "integer":
                return self._number(schema)
            case "string":
                return self._text(schema)
            case "array":
                return self._list(schema, optional)
            case "object":
                return self._object(schema, optional)
        raise AssertionError(f"no value for {schema}")

    def _element(self, target: list[Any], schema: Schema, name: str) -> Any:
        """One that has what is edited, if there is one: a phase has the blocks of its task alone."""
        if not target:
            target.append(self.of(schema, optional=0.0))
        return self._chance.choice([one for one in target if isinstance(one, dict) and name in one] or target)

    def _put(self, target: Any, name: str, value: Any) -> None:
        if name == EACH:
            place = self._chance.randrange(len(target) + 1)
            target[place : place + self._chance.randrange(2)] = [] if value is ABSENT else [value]
        elif value is ABSENT:
            target.pop(name, None)
        else:
            target[name] = value

    def _number(self, schema: Schema) -> int:
        low, high, step = schema["minimum"], schema["maximum"], schema.get("multipleOf", 1)
        wanted = self._chance.choice([low, high, schema.get("default", low), low + step, self._chance.randint(low, high)])
        return int(min(high, max(low, -(-wanted // step) * step)))

    def _text(self, schema: Schema) -> str:
        pattern, longest, shortest = schema.get("pattern", ""), schema.get("maxLength", 10**6), schema.get("minLength", 0)
        fit = [word for word in WORDS if shortest <= len(word) <= longest and re.search(pattern, word)]
        if schema.get("format") == "date-time":
            fit = [word for word in WORDS if re.match(r"2[0-9]{3}-", word)]
        assert fit, f"WORDS has none for {schema}; add one"
        return self._chance.choice(fit)

    def _list(self, schema: Schema, optional: float) -> list[Any]:
        fewest, most = schema.get("minItems", 0), schema.get("maxItems", 3)
        wanted = min(most, fewest + self._chance.randrange(3))
        keys = schema.get("x-kubernetes-list-map-keys", ())
        found: list[Any] = []
        for _ in range(wanted):
            one = self.of(schema["items"], optional)
            if not keys or all(any(one.get(key) != other.get(key) for key in keys) for other in found):
                found.append(one)
        return found

    def _object(self, schema: Schema, optional: float) -> dict[str, Any]:
        if more := schema.get("additionalProperties"):
            return {key: self.of(more) for key in KEYS if self._chance.random() < 0.3}
        required = schema.get("required", ())
        chosen = [name for name in schema.get("properties", {}) if name in required or self._chance.random() < optional]
        return {name: self.of(schema["properties"][name], optional) for name in chosen}
