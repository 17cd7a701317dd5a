"""The generator: what Kubernetes needs of a structural schema. That an API server accepts it is shown in tests/cluster."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from videogen_api import crd
from videogen_api.training_run import TrainingRunSpec

DEFINITIONS = {resource.kind: crd.definition(resource) for resource in crd.RESOURCES}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from nodes(value, f"{path}.{name}")
    for values in ("items", "additionalProperties"):
        if values in schema:
            yield from nodes(schema[values], f"{path}[]")


def root(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = DEFINITIONS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_no_node_has_a_keyword_that_a_structural_schema_forbids(kind: str) -> None:
    for path, node in nodes(root(kind)):
        assert not node.keys() & {"$ref", "$defs", "anyOf", "allOf", "oneOf", "const", "title"}, path
        assert "additionalProperties" not in node or (isinstance(node["additionalProperties"], dict) and "properties" not in node), path
        assert "type" in node or "enum" in node or node.get("x-kubernetes-int-or-string"), path


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_every_field_has_a_description_for_kubectl_explain(kind: str) -> None:
    bare = [path for path, node in nodes(root(kind)) if not node.get("description") and path != ".metadata" and path[-2:] != "[]"]
    assert bare == []


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_every_list_string_and_number_is_bounded(kind: str) -> None:
    for path, node in nodes(root(kind)):
        if path.startswith((".apiVersion", ".kind", ".metadata")):
            continue
        bounds = {"array": ["maxItems"], "string": ["maxLength"], "integer": ["minimum", "maximum"]}.get(node.get("type", ""), [])
        bounds = ["maxProperties"] if "additionalProperties" in node else bounds
        if "enum" in node or node.get("format") == "date-time":
            continue
        assert all(bound in node for bound in bounds), f"{kind}{path} has no {bounds}"


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_every_list_says_how_server_side_apply_merges_it(kind: str) -> None:
    missing = [path for path, node in nodes(root(kind)) if node.get("type") == "array" and "x-kubernetes-list-type" not in node]
    assert missing == []


def test_an_untouched_object_never_looks_ready() -> None:
    assert all(root(kind)["properties"]["status"]["default"] == {"observedGeneration": -1} for kind in DEFINITIONS)


def test_status_fields_have_no_defaults_because_they_would_look_like_foreign_changes() -> None:
    for kind in DEFINITIONS:
        status = root(kind)["properties"]["status"]
        assert [path for path, node in nodes(status) if path and "default" in node] == []


def test_items_of_an_atomic_list_have_no_defaults_because_server_side_apply_would_always_differ() -> None:
    for kind in DEFINITIONS:
        lists = [node for _, node in nodes(root(kind)["properties"]["spec"]) if node.get("x-kubernetes-list-type") == "atomic"]
        assert lists
        assert [path for one in lists for path, node in nodes(one["items"]) if "default" in node] == []


def test_no_family_has_a_default_in_another_familys_recipe() -> None:
    recipe = crd.structural(TrainingRunSpec)["properties"]["recipe"]["properties"]
    assert [name for name in ("videoFusion", "alignYourLatents", "text2VideoZero") if "default" in recipe[name]] == []


def test_no_rule_compares_with_a_share_in_words() -> None:
    rules = [rule for kind in DEFINITIONS for _, node in nodes(root(kind)) for rule in node.get("x-kubernetes-validations", [])]
    assert rules
    assert [rule["rule"] for rule in rules if re.search(r"'[0-9]+[.][0-9]+'", rule["rule"])] == []


def test_an_optional_field_is_left_out_and_never_null() -> None:
    schema = crd.structural(TrainingRunSpec)
    assert "initFrom" not in schema["required"]
    assert "null" not in str(schema).lower().replace("nullable", "")


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": [1, "x", {"c": None, "d": []}]},
        {"x-y": "with: colon", "deep": {"e": [[1, 2], {"f": True}]}},
        {"é": "λ = 0.7 # no comment"},
    ],
)
def test_the_yaml_reads_back_as_the_same_value(value: dict[str, Any]) -> None:
    assert yaml.safe_load(crd.yaml(value)) == value
