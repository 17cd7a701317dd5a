"""What a newcomer copies from the README works in that order, on what every cluster has."""

import re
from pathlib import Path

import yaml

from videogen_demo.install import GATEWAY_NAMESPACE

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "examples/first-release"
GUIDES = ("README.md", "docs/kubernetes.md")


def test_the_claim_is_applied_and_filled_before_the_run_that_reads_it() -> None:
    for guide in (*GUIDES, "charts/videogen/templates/NOTES.txt"):
        applied = re.findall(r"kubectl apply -f (examples/first-release/\S*)", (ROOT / guide).read_text())
        assert applied == ["examples/first-release/claim.yaml", "examples/first-release/training-run.yaml"], guide


def test_the_first_release_needs_a_volume_of_one_node_only() -> None:
    claim = yaml.safe_load((FIRST / "claim.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    run = yaml.safe_load((FIRST / "training-run.yaml").read_text())
    assert {phase.get("workers", {}).get("replicas", 1) for phase in run["spec"]["phases"]} == {1}


def test_every_guide_names_the_gateway_that_the_add_ons_bring() -> None:
    for guide in (*GUIDES, "charts/videogen/README.md"):
        named = re.findall(r"gateway\.namespace=([\w-]+)|gateway: \{name: \w+, namespace: ([\w-]+)\}", (ROOT / guide).read_text())
        assert {first or second for first, second in named} == {GATEWAY_NAMESPACE}, guide
