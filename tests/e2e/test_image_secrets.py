"""The password in a package index's address, in an image that buildah really builds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from videogen_demo.install import Installation
from videogen_testing.images import build

SECRET = "s3cr3t.example.org"


def buildah(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(["buildah", *command], capture_output=True, text=True, check=False, cwd=build.ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_neither_the_history_nor_the_files_of_an_image_have_it(installation: Installation, tmp_path: Path) -> None:
    """The operator's image, for it is small. `NO_PROXY` carries the secret, because with it downloads still work."""
    assert installation.images["operator"]
    environment = {**os.environ, "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), SECRET]))}
    target = "localhost/videogen/operator-of-a-test:1"
    command = build.build_command("buildah", "operator", target, build.BASE_IMAGES["buildah"], environment, development=True)
    # Said aloud by a step that reads the secret, so that the test knows it was there.
    dockerfile = tmp_path / "Dockerfile"
    source = (build.ROOT / "Dockerfile").read_text()
    told = source.replace(". /run/secrets/index; fi;", '. /run/secrets/index; fi; echo "NO_PROXY is $NO_PROXY";')
    assert told != source
    dockerfile.write_text(told)
    command[command.index("--file") + 1] = str(dockerfile)
    try:
        assert f"NO_PROXY is {environment['NO_PROXY']}" in buildah(*command[1:], environment=build.build_environment(environment))
        assert SECRET not in buildah("inspect", "--type", "image", target)
        container = buildah("from", "--pull-never", target).strip()
        try:
            root = buildah("mount", container).strip()
            found = subprocess.run(["grep", "-rlIF", SECRET, root], capture_output=True, text=True, check=False)
            assert (found.returncode, found.stdout) == (1, "")
            assert "videogen-operator" in (Path(root) / "usr/share/doc/videogen/NOTICES").read_text()
        finally:
            buildah("rm", container)
    finally:
        buildah("rmi", "--force", target)
