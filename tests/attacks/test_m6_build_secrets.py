"""The password in a package index's address must not stay in an image, nor in the command line that every process may read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from videogen_testing.images import build

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "S3CR3T"
HOSTILE = "$(touch /tmp/ran); `id` 'quoted' \"twice\" \\ #"
ENVIRONMENT = {
    "HOME": "/houses/anna",
    "PATH": "/usr/bin:/bin",
    "PIP_INDEX_URL": f"https://bot:{PASSWORD}@index.example.org/simple",
    "UV_DEFAULT_INDEX": f"https://bot:{PASSWORD}@index.example.org/simple",
    "HTTPS_PROXY": f"http://bot:{PASSWORD}@proxy.example.org",
    "NO_PROXY": HOSTILE,
}
DOWNLOADS = re.compile(r"pip install(?!.*--no-index)", re.DOTALL)


@pytest.mark.parametrize("engine", ["docker", "buildah"])
@pytest.mark.parametrize("name", build.IMAGES)
def test_no_command_line_has_the_password(engine: str, name: str) -> None:
    command = build.build_command(engine, name, "target:1", "parent:1", ENVIRONMENT, development=True)
    assert PASSWORD not in " ".join(command)


def instructions(dockerfile: str) -> list[str]:
    """The Dockerfile's instructions, each on one line, without comments."""
    lines = [line for line in (ROOT / dockerfile).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [one for one in "\n".join(lines).replace("\\\n", " ").splitlines() if one.strip()]


@pytest.mark.parametrize("name", build.IMAGES)
def test_no_build_argument_or_variable_of_an_image_can_hold_it(name: str) -> None:
    kept = [one for one in instructions(build.IMAGES[name].dockerfile) if re.match(r"(ARG|ENV|LABEL)\s", one)]
    assert kept
    assert [one for one in kept for variable in build.INDEX if variable in one] == []


@pytest.mark.parametrize("name", build.IMAGES)
def test_every_step_that_downloads_reads_it_from_a_mount(name: str) -> None:
    downloads = [one for one in instructions(build.IMAGES[name].dockerfile) if one.startswith("RUN") and DOWNLOADS.search(one)]
    assert downloads
    for one in downloads:
        assert one.startswith("RUN --mount=type=secret,id=index ")
        assert ". /run/secrets/index" in one


def test_the_secret_gives_a_shell_the_values_as_they_are_and_runs_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "index"
    secret.write_text(build.build_environment(ENVIRONMENT)[build.INDEX_VARIABLE])
    printed = "; ".join(f'printf "%s\\n" "${key}"' for key in ("PIP_INDEX_URL", "NO_PROXY"))
    done = subprocess.run(["sh", "-euc", f". {secret}; {printed}"], capture_output=True, text=True, check=True, env={})
    assert done.stdout.splitlines() == [ENVIRONMENT["PIP_INDEX_URL"], HOSTILE]
