"""Which defaults of a schema the API server fills in."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def without_defaults(node: Schema) -> Schema:
    """Status is stored as the operator wrote it: defaulted fields would look like foreign changes to it."""
    kept = {key: value for key, value in node.items() if key != "default"}
    if "properties" in kept:
        kept["properties"] = {name: without_defaults(value) for name, value in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = without_defaults(kept["items"])
    return kept


def told_defaults(node: Schema) -> Schema:
    """The items of an atomic list: their defaults are told, and not filled in. Who applies the list owns all of it, so what the API server
    adds would be a difference for ever (structured merge diff). The operator reads the same defaults from the types.
    """
    kept = without_defaults(node)
    for name, value in node.get("properties", {}).items():
        if value.get("default") not in (None, [], {}):
            kept["properties"][name]["description"] = f"{value['description']} Default: {value['default']}."
    return kept


def without_null(value: Any) -> Any:
    """A default as the API server takes it: an absent field is left out, not null."""
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    return [without_null(item) for item in value] if isinstance(value, list) else value
