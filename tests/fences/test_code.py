"""Rules about code that neither ruff nor import-linter knows."""

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

FUNCTION_LINES, MODULE_LINES, LOOP_LINES = 60, 400, 150
LOOP = "trainer-image/src/videogen_trainer/loop.py"  # one visible loop; one function of it may be long
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "base", "core", "misc"}


def functions(path: Path) -> Iterator[Function]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def kopf_decorators(function: Function) -> list[str]:
    names = [ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator) for decorator in function.decorator_list]
    return [name for name in names if name.startswith("kopf.")]


def test_kopf_handlers_are_short_and_asynchronous_and_in_one_module(sources: tuple[Path, ...]) -> None:
    """A sync handler runs in a thread, where waking an asyncio task fails silently."""
    handlers = [(path, function) for path in sources for function in functions(path) if kopf_decorators(function)]
    assert handlers
    for path, function in handlers:
        assert path.match("videogen_operator/handlers.py"), f"{path}: {function.name} is a kopf handler outside handlers.py"
        assert isinstance(function, ast.AsyncFunctionDef), f"{function.name} must be async"
        body = length(function) - (function.body[0].lineno - function.lineno)
        assert body <= 10, f"{function.name} has {body} lines; a handler only tells what has changed"


def test_functions_and_modules_stay_within_the_size_budget(sources: tuple[Path, ...], root: Path) -> None:
    large = []
    for path in sources:
        name = str(path.relative_to(root))
        lines = len(path.read_text(encoding="utf-8").splitlines())
        large += [f"{name}: {lines} lines"] if lines > MODULE_LINES else []
        long = sorted(((length(function), function.name) for function in functions(path)), reverse=True)
        if name == LOOP and long and long[0][0] <= LOOP_LINES:
            long = long[1:]
        large += [f"{name}: {function} has {size} lines" for size, function in long if size > FUNCTION_LINES]
    assert not large, "\n".join(large)


def test_most_functions_are_small(sources: tuple[Path, ...]) -> None:
    lengths = sorted(length(function) for path in sources for function in functions(path))
    tenth = statistics.quantiles(lengths, n=10)
    assert tenth[8] <= 30, f"a tenth of the functions has more than {tenth[8]:.0f} lines"
    assert statistics.median(lengths) <= 10


PICKLING = ("pickle", "cPickle", "dill", "joblib", "shelve", "marshal")
# Of torch.distributed: they pickle on one side and unpickle what came over the network on the other.
PICKLING_METHODS = {
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "recv_object_list",
    "scatter_object_list",
    "send_object_list",
}
PICKLING_MODULES = ("torch.distributed.checkpoint", "torch.distributed.rpc", "torch.distributed.elastic.rendezvous.dynamic_rendezvous")
PICKLING_CALLS = {"torch.save", "torch.load", "numpy.load", "np.load", "np.save", "numpy.save", "pandas.read_pickle"}


def test_nothing_is_pickled(sources: tuple[Path, ...]) -> None:
    """Ruff's ban of these is lifted for some files together with that of clocks; this one is not."""
    found = []
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            calls = [ast.unparse(node.func)] if isinstance(node, ast.Call) else []
            methods = {call.rpartition(".")[2] for call in calls} | {
                name.name for name in getattr(node, "names", []) if hasattr(name, "name")
            }
            allowed = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
            modules = any(name.partition(".")[0] in PICKLING or name.startswith(PICKLING_MODULES) for name in names)
            if modules or allowed or PICKLING_CALLS & set(calls) or PICKLING_METHODS & methods:
                found.append(f"{path}: {ast.unparse(node)}")
    assert not found, "\n".join(found)


def test_modules_are_named_after_the_domain(sources: tuple[Path, ...]) -> None:
    vague = [path for path in sources if path.stem in VAGUE or path.parent.name in VAGUE]
    assert not vague


def test_no_folder_shadows_a_module_of_pythons_own(repository_files: tuple[Path, ...], root: Path) -> None:
    """`operator/__init__.py` kills the interpreter; so does `tests/operator/__init__.py` under importlib mode."""
    wrong = [
        path
        for path in repository_files
        if path.name == "__init__.py" and (root / "tests" in path.parents or path.parent == root / "operator")
    ]
    assert not wrong
    assert not (root / "tests/operator").exists()


def test_shell_scripts_can_be_parsed(repository_files: tuple[Path, ...]) -> None:
    scripts = [path for path in repository_files if path.suffix == ".sh" or path.read_bytes()[:64].startswith(b"#!/usr/bin/env bash")]
    assert len(scripts) >= 2
    for script in scripts:
        result = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


HOSTS = (
    "docker.io",
    "ghcr.io",
    "quay.io",
    "gcr.io",
    "nvcr.io",
    "registry.k8s.io",
    "pkg.dev",
    "pypi.org",
    "pythonhosted.org",
    "proxy.golang.org",
)
HOST = re.compile(r"(?<![\w.-])(?:[\w-]+\.)*(?:" + "|".join(map(re.escape, HOSTS)) + r")(?![\w-])")
MACHINE_PATH = re.compile(r"(?<![\w.}$)/-])/(?:work|root|home|Users)(?=/|\b)(?!/?[-\w]*:)")
TEXT = {
    ".cfg",
    ".go",
    ".ini",
    ".in",
    ".json",
    ".lock",
    ".lua",
    ".md",
    ".mod",
    ".pbtxt",
    ".py",
    ".sh",
    ".toml",
    ".tpl",
    ".txt",
    ".yaml",
    ".yml",
    "",
}


def test_no_registry_host_and_no_path_of_a_machine_is_named(repository_files: tuple[Path, ...], root: Path) -> None:
    """Where packages and images come from is the user's setting, and nothing may lie where one machine had it."""
    found = []
    for path in repository_files:
        if path.suffix not in TEXT or path == Path(__file__) or path.name == "go.sum":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := HOST.search(line) or MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(root)}:{number}: {match[0]}")
    assert not found, "\n".join(found)
