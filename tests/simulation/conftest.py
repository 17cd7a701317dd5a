"""Golden transcripts: compared with the files in golden/, or written there with --update-golden."""

from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden transcripts instead of comparing with them")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, list[str]], None]:
    """`golden(name, lines)`: the lines must be those of golden/<name>.log."""

    def compare(name: str, lines: list[str]) -> None:
        path, text = GOLDEN / f"{name}.log", "\n".join(lines) + "\n"
        if request.config.getoption("--update-golden", default=False):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing; run pytest tests/simulation --update-golden and read what it wrote"
        assert text == path.read_text(encoding="utf-8"), f"differs from {path}; --update-golden accepts the new transcript"

    return compare
