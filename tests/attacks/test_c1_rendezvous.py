"""A stranger in the cluster who reaches the port at which the processes of a job meet must not run code in them.

The attack: write pickles to all keys of the store. The dynamic rendezvous of torch loads its state from there.
"""

from __future__ import annotations

import ast
import base64
import importlib
import inspect
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch.distributed as dist

from videogen_trainer import launch, rendezvous

RECIPE = {"resolution": {"height": 16, "width": 16}, "globalBatchSize": 4, "steps": 4, "videoFusion": {}}
JOB = {
    "contract": "v1", "run": "demo", "runUid": "0123", "namespace": "attacked", "phase": "train", "attempt": 1, "task": "Train",
    "model": {"family": "VideoFusion", "version": "1.0.0"}, "recipe": RECIPE, "workPath": "runs/demo/train", "joinSeconds": 600,
}  # fmt: skip
# The agent as it is; its processes wait for a file in place of training.
AGENT = """
import json, os, sys
from torch.distributed.launcher.api import elastic_launch
from videogen_api.job import Job
from videogen_trainer.launch import launch_config

config = launch_config(Job.model_validate(json.loads(sys.argv[1])), os.environ)
waits = "import os, sys, time\\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.1)"
elastic_launch(config, sys.executable)("-c", waits, sys.argv[2])
"""


class Runs:
    """What happens to whoever unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, int]]:
        return os.open, (str(self.marker), os.O_CREAT | os.O_WRONLY)


class Agents:
    """Agents of one attempt, each as in a pod of its own."""

    def __init__(self, folder: Path) -> None:
        self.end, self._folder, self.processes = folder / "end", folder, list[subprocess.Popen[bytes]]()

    def start(self, *, index: int = 0, endpoint: str = "", **job: int) -> None:
        environment = {"PATH": os.environ["PATH"], "PET_RDZV_ENDPOINT": endpoint, "PET_RDZV_BACKEND": "c10d"}
        environment |= {"VIDEOGEN_REPLICA_INDEX": str(index), "OMP_NUM_THREADS": "1"} if endpoint else {"OMP_NUM_THREADS": "1"}
        environment = {name: value for name, value in environment.items() if value}
        command = [sys.executable, "-c", AGENT, json.dumps(JOB | job), str(self.end)]
        with (self._folder / f"agent-{len(self.processes)}.log").open("wb") as log:
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("agent-*.log")))

    def listening(self) -> set[tuple[str, int]]:
        """Addresses and ports at which the agents and their processes listen."""
        found = set()
        for agent in self.processes:
            assert agent.poll() is None, self.log()
            family = [psutil.Process(agent.pid), *psutil.Process(agent.pid).children(recursive=True)]
            found |= {(c.laddr.ip, c.laddr.port) for one in family for c in one.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        return found

    def workers(self) -> int:
        return sum(len(psutil.Process(agent.pid).children()) for agent in self.processes)

    def wait(self, holds: Callable[[], object]) -> None:
        while not holds():
            assert all(agent.poll() is None for agent in self.processes), self.log()
            time.sleep(0.1)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    started = Agents(tmp_path)
    yield started
    for agent in started.processes:
        children = psutil.Process(agent.pid).children(recursive=True) if agent.poll() is None else []
        agent.kill()
        agent.wait()
        for child in children:
            child.kill()


def attack(port: int, marker: Path) -> int:
    """Overwrite every key of the store, and those that the dynamic rendezvous would have -> how many keys were there."""
    store = dist.TCPStore("127.0.0.1", port, None, False, timedelta(seconds=60), False)
    evil = pickle.dumps(Runs(marker))
    keys = store.list_keys()
    run = f"{JOB['runUid']}-{JOB['phase']}-{JOB['attempt']}"
    for key in {*keys, f"torch.rendezvous.{run}", f"/torch.rendezvous.{run}"}:
        for prefix in ("", "/") if not key.startswith("/") else ("",):
            store.set(f"{prefix}{key}", base64.b64encode(evil).decode())
            store.set(f"{prefix}{key}/raw", evil.decode("latin-1"))
    return len(keys)


def test_the_attacks_pickle_does_run_where_it_is_loaded(tmp_path: Path) -> None:
    os.close(pickle.loads(pickle.dumps(Runs(tmp_path / "ran"))))
    assert (tmp_path / "ran").exists()


def test_pickles_written_to_the_store_of_one_pod_with_two_processes_run_nothing(agents: Agents, tmp_path: Path) -> None:
    agents.start(processesPerWorker=2)
    agents.wait(lambda: agents.workers() == 2)
    listening = agents.listening()
    assert listening
    assert {address for address, _ in listening} == {"127.0.0.1"}, "nobody outside the pod reaches it at all"
    assert sum(attack(port, tmp_path / "ran") for _, port in listening) > 0
    agents.end.touch()
    agents.processes[0].wait()  # it may fail, for its store was overwritten; the dynamic rendezvous reads its state until the end
    assert not (tmp_path / "ran").exists(), "the pickle ran"


def test_pickles_written_to_the_store_of_two_pods_run_nothing(agents: Agents, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    for index in range(2):
        agents.start(index=index, endpoint=f"127.0.0.1:{port}", workers=2)
    agents.wait(lambda: agents.workers() == 2)
    assert port in {listening for _, listening in agents.listening()}
    assert attack(port, tmp_path / "ran") > 0
    agents.end.touch()
    for agent in agents.processes:
        agent.wait()
    assert not (tmp_path / "ran").exists(), "the pickle ran"


def test_pickles_written_while_one_pod_waits_for_another_run_nothing(agents: Agents, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    agents.start(index=0, endpoint=f"127.0.0.1:{port}", workers=2)
    agents.wait(lambda: port in {listening for _, listening in agents.listening()})
    attack(port, tmp_path / "ran")
    agents.start(index=1, endpoint=f"127.0.0.1:{port}", workers=2)
    agents.end.touch()
    for agent in agents.processes:
        agent.wait()
    assert not (tmp_path / "ran").exists(), "the pickle ran"


UNPICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
# What an agent calls: the rendezvous, its base, the agent, and how they store ranks and errors.
CHOSEN = [
    "torch.distributed.elastic.agent.server.api",
    "torch.distributed.elastic.agent.server.local_elastic_agent",
    "torch.distributed.elastic.multiprocessing.errors.error_handler",
    "torch.distributed.elastic.rendezvous.static_tcp_rendezvous",
    "torch.distributed.elastic.utils.store",
    "torch.distributed.launcher.api",
    "torch.distributed.rendezvous",
    "videogen_trainer.launch",
    "videogen_trainer.rendezvous",
]


def imported(module: str) -> set[str]:
    """Top-level names of what a module's source imports."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("module", CHOSEN)
def test_no_module_of_the_chosen_rendezvous_can_unpickle(module: str) -> None:
    assert not UNPICKLES & imported(module)


def test_the_dynamic_rendezvous_can_and_is_not_chosen() -> None:
    assert UNPICKLES & imported("torch.distributed.elastic.rendezvous.dynamic_rendezvous")
    assert {base.__module__ for base in rendezvous.Meeting.__mro__} & {"torch.distributed.elastic.rendezvous.dynamic_rendezvous"} == set()
    assert "rdzv_backend=rendezvous.BACKEND" in inspect.getsource(launch.launch_config)
