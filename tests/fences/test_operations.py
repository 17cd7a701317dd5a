"""docs/operations.md and docs/runbooks.md say of each metric and alert what it is, and of nothing that is not there."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_operator import telemetry
from videogen_operator.exporter import WorldCollector
from videogen_operator.kinds import KINDS
from videogen_testing.patience import HANGS
from videogen_testing.releases import Objects

ROOT = Path(__file__).parents[2]
RUNBOOKS, OPERATIONS = (ROOT / "docs" / name for name in ("runbooks.md", "operations.md"))
RULES = yaml.safe_load((ROOT / "charts/videogen/files/rules.yaml").read_text())
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
SECTIONS = dict(zip(*[iter(re.split(r"^## (\w+)\n", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:])] * 2, strict=True))
PARTS = ("**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Mitigation.**")
OF_OTHERS = {"videogen_request_duration_seconds", "videogen_requests"}  # the servers' own


def metrics() -> dict[str, set[str]]:
    """Every metric of the operator with its labels."""
    collected = [*WorldCollector(Objects(), KINDS).collect()]
    own = {one._name: set(one._labelnames) for one in vars(telemetry).values() if hasattr(one, "_labelnames")}
    return own | {family.name: set(family._labelnames) for family in collected}  # type: ignore[attr-defined]


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert list(SECTIONS) == list(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_its_section(alert: str) -> None:
    assert ALERTS[alert]["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert.lower()}"


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_section_has_its_parts_in_their_order(alert: str) -> None:
    places = [SECTIONS[alert].find(part) for part in PARTS]
    assert -1 not in places
    assert all(before < after for before, after in pairwise(places)), places
    assert "```sh" in SECTIONS[alert].partition(PARTS[2])[2], "a command that shows what is wrong"


def test_the_expressions_of_the_runbooks_can_be_evaluated(tmp_path: Path) -> None:
    blocks = re.findall(r"```promql\n(.*?)```", RUNBOOKS.read_text(), flags=re.DOTALL)
    expressions = [line for block in blocks for line in block.splitlines()]
    assert expressions
    rules = [{"record": f"r:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    program = shutil.which("promtool")
    assert program, "no promtool: install Debian's package prometheus"
    result = subprocess.run(
        [program, "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True, check=False, timeout=HANGS
    )
    assert result.returncode == 0, result.stderr


def test_metrics_that_rules_and_runbooks_name_are_there() -> None:
    text = RUNBOOKS.read_text() + str(RULES)
    named = set(re.findall(r"\bvideogen_(?!action)\w+", text))
    plain = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in named}
    assert plain <= set(metrics()) | OF_OTHERS


def test_every_metric_is_explained_with_its_labels() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in OPERATIONS.read_text().splitlines()
        if line.startswith("| `videogen_")
    ]
    explained = {
        name.removesuffix("_total"): set(re.findall(r"`(\w+)`", row[1])) for row in rows for name in re.findall(r"`(videogen_\w+)`", row[0])
    }
    explained["videogen_series_left_out"] = {"namespace", "metric"}  # in the text between the tables
    known = metrics()
    assert set(explained) == set(known)
    for name, labels in known.items():
        assert labels <= explained[name], name
        assert len(explained[name]) == len(labels) or "namespace" in labels, f"{name}: a row of several metrics names the labels of all"
