"""What a bare machine needs is installed, or named in one sentence."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from localcluster import apt, build
from localcluster.faults import Fault
from localcluster.layout import Layout, checkout
from localcluster.versions import APT_PACKAGES, GO_PARTS, GoPart

SOURCES = checkout() / "localcluster/src/localcluster"
RUNNERS = {"run", "succeeds", "Popen"}
NAMES = {"command", "private", "program"}  # variables that hold commands
WRAPPERS = {"nice", "nsenter", "unshare"}  # a program follows
# Checked for on its own (Go), brought by another package (apt), or only called where it is.
EXCEPTIONS = {"go", "apt-get", "systemctl", "python3"}


def words(node: ast.expr) -> list[str]:
    """A literal's constant words; none if it begins with something else, such as a program that was built."""
    items = node.elts if isinstance(node, ast.List | ast.Tuple) else []
    found = [item.value if isinstance(item, ast.Constant) else None for item in items]
    return [word for word in found if isinstance(word, str)] if found and isinstance(found[0], str) else []


def commands(tree: ast.AST) -> Iterator[list[str]]:
    """The constant words of every literal that is run, or that is a command by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).rpartition(".")[2] in RUNNERS:
            yield words(node.args[0])
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in NAMES:
            yield words(node.value)
        elif isinstance(node, ast.Call):
            yield from (words(keyword.value) for keyword in node.keywords if keyword.arg == "argv")


def programs() -> set[str]:
    found = set()
    for file in SOURCES.glob("*.py"):
        for command in commands(ast.parse(file.read_text())):
            named = [word for word in command if not word.startswith("-") and word != "slave"]
            found |= {word for index, word in enumerate(named) if index == 0 or named[index - 1] in WRAPPERS}
    return found


@cache
def owner(program: str) -> str:
    """The Debian package that has a program; its file may be listed under the name that a merged /usr has replaced."""
    found = shutil.which(program) or (program if Path(program).exists() else None)
    if not found:  # a machine that has no cluster yet
        return next((package for package, file in APT_PACKAGES.items() if Path(file).name == program), f"{program} is not there")
    path = Path(found)
    names = [str(name) for name in (path, Path("/", *path.parts[2:]), path.resolve())]
    listed = subprocess.run(["dpkg-query", "-S", *names], capture_output=True, text=True, check=False).stdout
    owners = {line.rpartition(": ")[2]: line.partition(":")[0] for line in listed.splitlines() if not line.startswith("diversion")}
    return next((owners[name] for name in names if name in owners), f"{program} belongs to no package")


def always_there(package: str) -> bool:
    command = ["dpkg-query", "-W", "-f", "${Essential} ${Priority}", package]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return "yes" in shown or shown.endswith("required")


def test_every_program_that_is_called_is_part_of_every_debian_or_installed() -> None:
    called = programs() - EXCEPTIONS
    assert {"ip", "openssl", "buildah", "sysctl", "umount", "mmdebstrap", "nft"} <= called
    wanting = {program: owner(program) for program in called if owner(program) not in APT_PACKAGES and not always_there(owner(program))}
    assert wanting == {}


def test_the_file_by_which_a_package_is_known_is_its_own_or_made_by_it() -> None:
    made = {"ca-certificates"}  # written when the package is configured
    installed = {package: file for package, file in APT_PACKAGES.items() if Path(file).exists() and package not in made}
    assert installed
    assert {package for package, file in installed.items() if owner(file) != package} == set()


def test_whoever_cannot_install_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = {"gcc": str(tmp_path / "gcc"), "sh": "/bin/sh"}
    monkeypatch.setattr(apt, "install", lambda packages: pytest.fail(f"{packages} would be installed"))
    for there, user in ((None, 0), ("/usr/bin/apt-get", 1000)):
        monkeypatch.setattr(shutil, "which", lambda _, there=there: there)
        monkeypatch.setattr(apt.os, "geteuid", lambda user=user: user)
        with pytest.raises(Fault, match=rf"^missing: gcc \({re.escape(str(tmp_path))}/gcc\); install these packages, or run this as root"):
            apt.ensure(missing)
    apt.ensure({"sh": "/bin/sh"})


@pytest.mark.parametrize("cgo", [True, False])
def test_a_part_that_needs_a_c_compiler_gets_one_before_it_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cgo: bool) -> None:
    asked: list[str] = []
    monkeypatch.setattr(apt, "ensure", asked.extend)
    layout = Layout(repo=tmp_path, index=0)
    (layout.go / "tool").mkdir(parents=True)
    (layout.go / "tool/go.mod").write_text("module example\n\ngo 1.21\n")
    (layout.go / "tool/main.go").write_text("package main\n\nfunc main() {}\n")
    build.build(layout, GoPart(module="tool", version="1", source="", packages={"tool": "example"}, cgo=cgo))
    assert (layout.bin / "tool").exists()
    assert asked == (["gcc", "libc6-dev"] if cgo else [])


def test_some_parts_need_a_c_compiler() -> None:
    assert {part.module for part in GO_PARTS if part.cgo} == {"kubernetes", "etcd"}
