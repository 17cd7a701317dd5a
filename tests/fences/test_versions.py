"""One version everywhere, and locks that name exactly what is installed."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[\w,-]+\])?)==([^\s;\\]+)")


def released() -> str:
    """The newest version in the changelog."""
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions, "CHANGELOG.md has no `## [x.y.z]`"
    return str(versions[0])


def test_the_changelog_begins_with_unreleased() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", released()]


def test_every_distribution_has_the_changelogs_version(repository_files: tuple[Path, ...]) -> None:
    projects = [tomllib.loads(path.read_text()) for path in repository_files if path.name == "pyproject.toml"]
    versions = {project["project"]["name"]: project["project"]["version"] for project in projects if "project" in project}
    assert {"videogen-api", "videogen-operator", "videogen-trainer", "videogen-serving"} <= versions.keys()
    assert versions == dict.fromkeys(versions, released())


def test_the_chart_has_the_changelogs_version() -> None:
    chart = yaml.safe_load((ROOT / "charts/videogen/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (released(), released())


def entries(lock: Path) -> list[str]:
    """The logical lines of a lock: continuation lines joined, comments dropped."""
    text = re.sub(r"\\\n", " ", lock.read_text())
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_and_hashes_everything_and_names_no_index(lock: Path) -> None:
    lines = entries(lock)
    assert lines
    for line in lines:
        assert PINNED.match(line), f"not pinned: {line[:80]}"
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), f"no hash: {line[:80]}"
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host| @ ", lock.read_text())


def test_locks_agree() -> None:
    """So that tests and images run the same versions."""
    pins = {lock.stem: {m[1]: m[2] for line in entries(lock) if (m := PINNED.match(line))} for lock in LOCKS}
    everything = pins["all"]
    assert pins["operator"].keys() | pins["torch"].keys() <= everything.keys()
    for name, pinned in pins.items():
        differing = {package: version for package, version in pinned.items() if everything.get(package, version) != version}
        assert not differing, f"{name}.lock differs from all.lock"
