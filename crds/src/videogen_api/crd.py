"""CustomResourceDefinitions from the pydantic types. `python -m videogen_api.crd --write DIR | --check DIR`.

Kubernetes wants a *structural* schema in OpenAPI 3.0: no `$ref`, no `anyOf` with null, no `const`, no titles
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/). pydantic writes JSON
Schema 2020-12, so this module rewrites the one into the other. JSON is YAML, and it is written by hand as YAML here
because the API package depends on pydantic alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from videogen_api.fine_tune_cycle import CYCLE_RULES, SET_BY_THE_CYCLE, FineTuneCycleSpec, FineTuneCycleStatus
from videogen_api.meta import CATEGORY, GROUP, TYPES, VERSION, type_of
from videogen_api.model_release import ModelReleaseSpec, ModelReleaseStatus
from videogen_api.run_changes import CHANGE_RULE
from videogen_api.run_rules import RUN_RULES, SPEC_RULE
from videogen_api.schema_defaults import told_defaults, without_defaults, without_null
from videogen_api.training_run import TrainingRunSpec, TrainingRunStatus

Schema = dict[str, Any]
_DROPPED = ("title", "additionalProperties", "const", "$defs", "multipleOf")
_OF_TEMPLATES = frozenset(  # keywords that hold before placeholders are filled in; no defaults, which are those of the run
    {"type", "description", "properties", "items", "additionalProperties", "required", "minimum", "maximum", "maxItems", "minItems", "enum"}
    | {"x-kubernetes-int-or-string", "maxLength", "maxProperties"}
)


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column; priority 1 shows with `-o wide` only."""

    name: str
    path: str
    description: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: its types, its names and what kubectl prints."""

    kind: str
    plural: str
    short: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    rules: tuple[tuple[str, str, str] | Schema, ...]  # CEL, message, path of the field that the message is about ("" for none)
    columns: tuple[Column, ...]
    spec_rules: tuple[Schema, ...] = ()  # the same over the spec alone, of cel.merged
    scale: tuple[str, str, str] | None = None  # paths of the replicas asked for, of those that exist, and of their selector


AGE = Column("Age", ".metadata.creationTimestamp", "Since when the object exists.", "date")

TRAINING_RUN = Resource(
    kind="TrainingRun",
    plural="trainingruns",
    short="vrun",
    description="One model's schedule: an ordered list of phases, each attempt of a phase one Kubeflow PyTorchJob.",
    spec=TrainingRunSpec,
    status=TrainingRunStatus,
    rules=(*RUN_RULES, CHANGE_RULE | {"fieldPath": ".spec"}),
    spec_rules=(SPEC_RULE,),
    columns=(
        Column("Status", ".status.conditions[?(@.type=='Succeeded')].reason", "What the run is doing, or why it ended."),
        Column("Phase", ".status.summary.phase", "Number and name of the current phase."),
        Column("Team", ".status.summary.team", "Whose turn it is."),
        Column("Progress", ".status.summary.progress", "Share of the phase that is done."),
        Column("ETA", ".status.summary.eta", "Time to the end of the phase at the present speed."),
        Column("Step", ".status.summary.step", "Training step of all steps."),
        Column("Loss", ".status.summary.loss", "Newest training loss.", priority=1),
        Column("Model", ".status.summary.model", "Name of the version that the run makes.", priority=1),
        Column("Release", ".status.release", "ModelRelease that the run created.", priority=1),
        Column("Message", ".status.conditions[?(@.type=='Succeeded')].message", "The status in words.", priority=1),
        AGE,
    ),
)

MODEL_RELEASE = Resource(
    kind="ModelRelease",
    plural="modelreleases",
    short="vrel",
    description="One version of one model in a service; all releases of a service compete for its traffic.",
    spec=ModelReleaseSpec,
    status=ModelReleaseStatus,
    rules=(
        (
            f"self.metadata.name == 'pib-videogen-' + {type_of('self.spec.model')} + '-v' + self.spec.model.version + '-'"
            " + self.spec.model.specialization",
            "metadata.name must be pib-videogen-<type>-v<version>-<specialization>, made from spec.model; without a type it is"
            f" {', '.join(TYPES.values())}, by family",
            ".spec.model",
        ),
    ),
    columns=(
        Column("Status", ".status.summary.status", "What the release is doing."),
        Column("Service", ".spec.service", "Service whose traffic it competes for."),
        Column("Weight", ".status.summary.weight", "Share of the service's traffic, read back from the route."),
        Column("Gates", ".status.summary.gates", "Offline gates passed, of all."),
        Column("Family", ".spec.model.family", "Architecture of the model.", priority=1),
        Column("Message", ".status.summary.message", "What it is doing or waiting for."),
        Column("RolledBack", ".status.rollback.reason", "Why its traffic was taken back.", priority=1),
        Column("Changed", ".status.trafficHistory[-1:].time", "When its share of the traffic last changed.", "date", priority=1),
        Column("By", ".status.trafficHistory[-1:].by", "Who changed it.", priority=1),
        Column("Run", ".spec.lineage.run", "TrainingRun that made it.", priority=1),
        Column("StartedFrom", ".spec.lineage.initFrom.release", "Release whose weights the run started from.", priority=1),
        Column("Report", ".spec.lineage.evaluation.report", "HTML page about it, in the claim of its artifact.", priority=1),
        AGE,
    ),
    scale=(".spec.serving.replicas", ".status.replicas", ".status.selector"),
)

FINE_TUNE_CYCLE = Resource(
    kind="FineTuneCycle",
    plural="finetunecycles",
    short="vcycle",
    description="A calendar for one model: each scheduled time creates one TrainingRun from a template, under the next version.",
    spec=FineTuneCycleSpec,
    status=FineTuneCycleStatus,
    rules=(
        (
            "self.metadata.name.size() <= 26 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must have at most 26 characters, begin with a letter and contain only a-z, 0-9 and hyphens, because runs are"
            " named after it and their scheduled time",
            "",
        ),
        *CYCLE_RULES,
    ),
    columns=(
        Column("Status", ".status.summary.status", "What the cycle is doing."),
        Column("Cadence", ".spec.cadence", "How often, and which part of the version each run raises."),
        Column("Current", ".status.summary.current", "Run at work and its phase."),
        Column("Next", ".status.nextScheduleTime", "Next scheduled time."),
        Column("Last", ".status.summary.last", "Outcome of the last scheduled time."),
        Column("Version", ".status.lastVersion", "Highest version that the cycle has used.", priority=1),
        Column("Message", ".status.summary.message", "What it is doing or waiting for.", priority=1),
        AGE,
    ),
)

RESOURCES = (TRAINING_RUN, FINE_TUNE_CYCLE, MODEL_RELEASE)
_IMMUTABLE = {  # what decides how a model behaves or is judged; what is operational is not here
    "TrainingRun": [],  # see run_changes.py
    "ModelRelease": [
        "service",
        "model",
        "artifact",
        "lineage",
        "gates",
        "serving.samplingSteps",
        "rollout.steps",
        "rollout.checks",
        "rollout.failureLimit",
    ],
    "FineTuneCycle": ["model"],
}


def definition(resource: Resource) -> Schema:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short],
                "categories": [CATEGORY],
            },
            "versions": [_version(resource)],
        },
    }


def _version(resource: Resource) -> Schema:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}} | _scale(resource),
        "additionalPrinterColumns": [_column(column) for column in resource.columns],
        "schema": {"openAPIV3Schema": _root(resource)},
    }


def _scale(resource: Resource) -> Schema:
    names = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
    return {"scale": dict(zip(names, resource.scale, strict=True))} if resource.scale else {}


def _column(column: Column) -> Schema:
    shown = {"name": column.name, "type": column.type, "jsonPath": column.path, "description": column.description}
    return shown | ({"priority": column.priority} if column.priority else {})


def _root(resource: Resource) -> Schema:
    spec = structural(resource.spec)
    spec["description"] = _first_paragraph(resource.spec)
    if resource is FINE_TUNE_CYCLE:
        template = spec["properties"]["runTemplate"]["properties"]
        template["spec"] = _template(structural(TrainingRunSpec), without=SET_BY_THE_CYCLE) | {
            "description": template["spec"]["description"]
        }
    if rules := [*resource.spec_rules, *_immutability(resource)]:
        spec.setdefault("x-kubernetes-validations", []).extend(rules)
    status = without_defaults(structural(resource.status))
    status |= {"description": _first_paragraph(resource.status), "default": {"observedGeneration": -1}}
    return {
        "type": "object",
        "description": resource.description,
        "required": ["spec"],
        "x-kubernetes-validations": [rule if isinstance(rule, dict) else _root_rule(*rule) for rule in resource.rules],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": resource.kind},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def _root_rule(rule: str, message: str, path: str) -> Schema:
    return {"rule": rule, "message": message} | ({"fieldPath": path} if path else {})


def _immutability(resource: Resource) -> Iterator[Schema]:
    """Rules on the spec, because a rule on an optional field would not see it being added or removed. A field of a block has a default, as
    the block has, so it is always there.
    """
    instead = {
        "ModelRelease": "release a new version instead, which may have the same artifact",
        "FineTuneCycle": "create another FineTuneCycle instead",
    }.get(resource.kind, "")
    for name in _IMMUTABLE[resource.kind]:
        same = f"self.{name} == oldSelf.{name}"
        yield {
            "rule": same if "." in name else f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {same})",
            "message": f"spec.{name} is immutable; {instead}",
        }


def _first_paragraph(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())


def structural(model: type[BaseModel]) -> Schema:
    """A pydantic model's schema as Kubernetes accepts it."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _rewrite(raw, raw.get("$defs", {}))


def _rewrite(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    merged = _merged(node, definitions)
    result = {key: value for key, value in merged.items() if key not in _DROPPED}
    if "const" in merged:
        result["enum"] = [merged["const"]]
    if (step := merged.get("multipleOf")) is not None:
        result["multipleOf"] = step
    if "properties" in result:
        result["properties"] = {name: _property(value, definitions) for name, value in result["properties"].items()}
    if "items" in result:
        result["items"] = _rewrite(result["items"], definitions)
    if result.get("x-kubernetes-list-type") == "atomic":
        result["items"] = told_defaults(result["items"])
    if isinstance(values := merged.get("additionalProperties"), dict):  # of a map
        result["additionalProperties"] = _rewrite(values, definitions)
    if result.get("x-kubernetes-int-or-string"):
        del result["type"]  # 4 as well as "4"
    if result.get("type") == "integer":
        result["format"] = "int64"
    return result


def _property(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    result = _rewrite(node, definitions)
    if "default" in result and result["default"] is None:
        del result["default"]
    if "default" in result:
        result["default"] = without_null(result["default"])
    return result


def _template(node: Schema, without: Collection[str] = ()) -> Schema:
    """The schema of a template: the same fields, whose texts may have placeholders in them. Rules between fields hold for what is made of
    it. So nothing is kept that the schema does not know, as deep as it may be: deeper JSON than Python reads would stop the operator.
    """
    kept = {key: value for key, value in node.items() if key in _OF_TEMPLATES}
    if kept.get("type") == "array":
        kept["x-kubernetes-list-type"] = "atomic"
    if "properties" in kept:
        kept["properties"] = {name: _template(value) for name, value in kept["properties"].items() if name not in without}
        kept["required"] = [name for name in kept.get("required", []) if name not in without]
    for inner in ("items", "additionalProperties"):
        if inner in kept:
            kept[inner] = _template(kept[inner])
    return {key: value for key, value in kept.items() if value != []}


def _merged(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """References inlined; `X | None` is X, since an optional field is simply left out; own keywords win."""
    own = {key: value for key, value in node.items() if key not in ("$ref", "anyOf", "allOf")}
    options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    assert len(options) <= 1, f"a union has no structural schema: {options}"
    target = node.get("$ref") or (options[0].get("$ref") if options else None)
    inner = definitions[target.rsplit("/", 1)[1]] if target else (options[0] if options else {})
    return (_merged(inner, definitions) if inner else {}) | own


def yaml(value: Any, indent: int = 0) -> str:
    """Block-style YAML of JSON data; strings are JSON-quoted, so that nothing is misread."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{_key(key)}:{_nested(item, indent)}" for key, item in value.items())
    assert isinstance(value, list) and value, "only containers with content have a block form"
    return "".join(f"{pad}-{_item(item, indent)}" for item in value)


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() else json.dumps(key)


def _nested(item: Any, indent: int) -> str:
    return f"\n{yaml(item, indent + 1)}" if isinstance(item, dict | list) and item else f" {json.dumps(item, ensure_ascii=False)}\n"


def _item(item: Any, indent: int) -> str:
    if isinstance(item, dict | list) and item:
        return " " + yaml(item, indent + 1).lstrip(" ")
    return f" {json.dumps(item, ensure_ascii=False)}\n"


def files() -> dict[str, str]:
    """File name -> text of every generated CRD."""
    head = "# Generated from crds/src/videogen_api by `make generate`; edit the types, not this file.\n"
    return {f"{resource.plural}.yaml": head + yaml(definition(resource)) for resource in RESOURCES}


def main(arguments: list[str]) -> int:
    """Write the CRDs into a folder, or check that they are current there."""
    parser = argparse.ArgumentParser(prog="python -m videogen_api.crd", description="CRDs from the API's types.")
    parser.add_argument("folders", nargs="+", type=Path, help="where the YAML files are")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    options = parser.parse_args(arguments)
    stale = [
        path
        for folder in options.folders
        for name, text in files().items()
        if not (path := folder / name).exists() or path.read_text() != text
    ]
    if options.check:
        for path in stale:
            print(f"{path} is not current; run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for folder in options.folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files().items():
            (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
