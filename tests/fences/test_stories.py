"""`make stories` tells of every task and of every example; what is added to either needs a story, too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from videogen_api.training_run import Task, TrainingRunSpec
from videogen_demo import story
from videogen_testing import task_stories
from videogen_testing.small_examples import BACKBONE, CLIP, EXAMPLES, documents, small

DIGESTS = {BACKBONE: "sha256:" + "1" * 64, CLIP: "sha256:" + "2" * 64}
RUNS = {
    f"{path.relative_to(EXAMPLES)} {document['metadata']['name']}": document
    for path in sorted(EXAMPLES.rglob("*.yaml"))
    for document in documents(str(path.relative_to(EXAMPLES)))
    if document["kind"] == "TrainingRun"
}


def test_every_task_is_told_once_and_judged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("stories_of_tasks", root / "tests/e2e/stories_of_tasks.py")
    assert spec
    assert spec.loader
    stories = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "stories_of_tasks", stories)  # dataclasses look there
    spec.loader.exec_module(stories)
    by_people = {Task.APPROVE}  # tests/simulation/test_approvals.py and tests/cluster/test_approvals.py
    assert set(stories.JUDGED_BY) == set(task_stories.told_in()) == set(Task) - by_people


def test_every_example_is_told(root: Path) -> None:
    files = [f"tests/e2e/stories_of_{name}.py" for name in ("examples", "gitops", "queues")] + [
        "tests/support/videogen_testing/queued_runs.py"
    ]
    text = "".join((root / file).read_text() for file in files)
    told = {path for path in EXAMPLES.rglob("*.yaml") if f'"{path.relative_to(EXAMPLES)}"' in text}
    assert told | set(story.manifests()) == set(EXAMPLES.rglob("*.yaml"))


@pytest.mark.parametrize("name", RUNS)
def test_a_small_example_is_as_small_as_said_and_keeps_its_phases_and_gates(name: str) -> None:
    example = RUNS[name]
    made = small(example, "models", DIGESTS)
    spec = TrainingRunSpec.model_validate(made["spec"])
    assert "nvidia.com/gpu" not in str(made)
    assert "0" * 64 not in str(made)
    assert spec.recipe.steps <= 2
    assert [outline(phase) for phase in made["spec"]["phases"]] == [outline(phase) for phase in example["spec"]["phases"]]


def outline(phase: dict[str, Any]) -> dict[str, Any]:
    """What the small example has in common with the one that is meant."""
    gates = [(gate["metric"], gate["operator"]) for gate in phase.get("gates", [])]
    data = [(entry["dataset"], entry["version"], entry.get("split")) for entry in phase.get("data", [])]
    return {"name": phase["name"], "task": phase["task"], "gates": gates, "data": data, "blocks": set(phase)}
