"""The API: generated files are current, small and explained; the package is light; the examples are valid."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from videogen_api.crd import RESOURCES
from videogen_api.meta import API_VERSION

ROOT = Path(__file__).parents[2]
COPIES = ("crds", "charts/videogen/files/crds")
DEFINITIONS = sorted((ROOT / "crds").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.y*ml"))
Schema = dict[str, Any]


@cache
def schema_of(kind: str) -> Schema:
    """The schema that the API server gets for a kind."""
    definitions = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in DEFINITIONS]
    (definition,) = (item for item in definitions if item["spec"]["names"]["kind"] == kind)
    return dict(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def nodes(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every node of a schema, metadata left out."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        if (path, name) != ("", "metadata"):
            yield from nodes(inner, f"{path}.{name}")
    for values in ("items", "additionalProperties"):
        if values in schema:
            yield from nodes(schema[values], f"{path}[]")


FIRST_SENTENCE = 125  # characters
KINDS = tuple(resource.kind for resource in RESOURCES)


@pytest.mark.parametrize("folder", COPIES)
def test_the_generated_definitions_are_current(folder: str) -> None:
    command = [sys.executable, "-m", "videogen_api.crd", "--check", str(ROOT / folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (ROOT / folder).glob("*.yaml")} == {f"{resource.plural}.yaml" for resource in RESOURCES}


def test_the_chart_has_the_definitions_once() -> None:
    """In templates/ they would be rendered a second time, whatever `crds.install` says."""
    assert not list((ROOT / "charts/videogen").glob("templates/crds/*"))
    assert not (ROOT / "charts/videogen/crds").exists()


def test_the_definitions_are_small() -> None:
    """An object's last-applied annotation may have 256 KiB, and Helm's release Secret 1 MiB."""
    sizes = [path.stat().st_size for path in DEFINITIONS]
    assert sum(sizes) < 500_000
    assert max(sizes) < 256 * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_explained(kind: str) -> None:
    missing = [path for path, node in nodes(schema_of(kind), "") if not path.endswith("[]") and not node.get("description")]
    assert not missing


@pytest.mark.parametrize("kind", KINDS)
def test_every_explanation_begins_with_a_short_sentence(kind: str) -> None:
    """What `kubectl explain` shows first must be read at a glance; details come after it."""
    begun = {path: re.split(r"(?<=[.:;])\s", node.get("description", ""))[0] for path, node in nodes(schema_of(kind), "")}
    assert not {path: first for path, first in begun.items() if len(first) > FIRST_SENTENCE}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_bounded(kind: str) -> None:
    """The API server refuses rules over unbounded values, and an object may have 1.5 MB."""
    bounds = {"string": {"maxLength"}, "array": {"maxItems", "x-kubernetes-list-type"}, "integer": {"minimum", "maximum"}}
    open_ended = [
        f"{path} lacks {', '.join(sorted(lacking))}"
        for path, node in nodes(schema_of(kind), "")
        if path not in {".apiVersion", ".kind"} and "enum" not in node and (lacking := bounds.get(node.get("type"), set()) - node.keys())
    ]
    assert not open_ended, "\n".join(open_ended)


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_is_a_float(kind: str) -> None:
    assert not [path for path, node in nodes(schema_of(kind), "") if node.get("type") == "number"]


LIGHT = {"videogen_api", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}


def test_the_api_package_imports_only_pydantic() -> None:
    code = (
        "import sys; before = set(sys.modules); import importlib, pkgutil, videogen_api;"
        "[importlib.import_module('videogen_api.' + module.name) for module in pkgutil.iter_modules(videogen_api.__path__)];"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign = set(result.stdout.split()) - sys.stdlib_module_names - LIGHT
    assert not {name for name in foreign if not name.startswith("_sysconfigdata")}


def strict(schema: Schema) -> Schema:
    """The same schema, refusing unknown fields as `kubectl apply` does."""
    changed = {key: value for key, value in schema.items() if key != "format"}
    if "properties" in schema:
        changed["properties"] = {name: strict(inner) for name, inner in schema["properties"].items()}
        changed["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields", False))
    if "items" in schema:
        changed["items"] = strict(schema["items"])
    return changed


def test_there_are_examples_of_every_kind() -> None:
    kinds = {document["kind"] for path in EXAMPLES for document in yaml.safe_load_all(path.read_text()) if document}
    assert "TrainingRun" in kinds


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_valid(path: Path) -> None:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert documents
    for document in documents:
        assert {"apiVersion", "kind", "metadata"} <= document.keys()
        if not document["apiVersion"].startswith(API_VERSION.partition("/")[0]):
            continue
        assert document["apiVersion"] == API_VERSION
        schema = strict(schema_of(document["kind"]))
        schema["properties"]["metadata"] = {"type": "object"}
        jsonschema.Draft7Validator(schema).validate(document)
        (resource,) = (resource for resource in RESOURCES if resource.kind == document["kind"])
        resource.spec.model_validate(document["spec"])
