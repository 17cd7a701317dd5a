"""What belongs to the repository: every file that git knows or would take, none that it ignores."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def repository_files() -> tuple[Path, ...]:
    """Every file of the repository, absolute."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    files = tuple(path for name in names if name and (path := ROOT / name).is_file())
    assert len(files) > 50
    return files


@pytest.fixture(scope="session")
def sources(repository_files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Every Python file that is not a test."""
    return tuple(path for path in repository_files if path.suffix == ".py" and ROOT / "tests" not in path.parents)
