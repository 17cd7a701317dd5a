"""Python programs in processes forked from one that has imported the trainer: what PyTorch takes to start is paid once.

Such a process has its own pid, process group, environment, output, signals and exit code, and runs what its command line says (`-m`, `-c`
or a file) from the first line on. Torch's agent, in one of them, has its workers forked here too, not from itself, where threads run. What
differs from an interpreter of its own: modules are there already, the parent is the server, hashes of strings are those of the others.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Mapping, Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from videogen_testing.patience import HANGS

_MODULES = (  # the trainer's first: it decides what others find of bitsandbytes
    "videogen_trainer.evaluate",
    "videogen_trainer.families.align_your_latents",
    "videogen_trainer.families.text2video_zero",
    "videogen_trainer.families.videofusion",
    "videogen_trainer.launch",
    "videogen_trainer.loop",
    "videogen_trainer.tasks",
    "videogen_trainer.tracking.event_files",
    "videogen_trainer.tune",
    "diffusers.schedulers.scheduling_ddpm",
    "diffusers.schedulers.scheduling_deis_multistep",
    "diffusers.schedulers.scheduling_dpmsolver_singlestep",
    "diffusers.schedulers.scheduling_edm_euler",
    "diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete",
    "diffusers.schedulers.scheduling_k_dpm_2_discrete",
    "diffusers.schedulers.scheduling_unipc_multistep",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.launcher.api",
    "torch.utils.tensorboard",
)
_MOST = 1 << 17  # bytes of a request


class Fork:
    """A running program, to be used as a `subprocess.Popen` is."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], stdout: int | None = None, stderr: int | None = None, **_: Any) -> None:
        self.args = list(args)
        self.returncode: int | None = None
        self._answers = _connected()
        request = json.dumps({"command": self.args[1:], "environment": dict(env)}).encode()
        socket.send_fds(self._answers, [request], [1 if stdout is None else stdout, 2 if stderr is None else stderr])
        self.pid = int(self._answer(HANGS))

    def _answer(self, seconds: float | None) -> bytes:
        if not select.select([self._answers], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired(self.args, seconds or 0)
        answer = self._answers.recv(_MOST)
        assert answer, "the server of forks has ended"
        return answer

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal. Raises TimeoutExpired."""
        if self.returncode is None:
            self.returncode = int(self._answer(timeout))
            self._answers.close()  # until now the pid was nobody else's
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """Leave neither the process behind nor the connection."""
        self.kill()
        self.wait()


def forked_by(pid: int) -> list[int]:
    """The living programs that a process, which may have ended, has had forked."""
    with _connected() as answers:
        answers.send(json.dumps({"of": pid}).encode())
        found: list[int] = json.loads(answers.recv(_MOST))
    return found


_address: list[str] = []  # of the server: known to it and so to its forks


def _connected() -> socket.socket:
    address = _address[0] if _address else _started()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(address)
    return connection


@functools.cache
def _started() -> str:
    """Start the server. It ends with this process, which alone has the other end of its standard input."""
    address = f"\0videogen-forks-{os.getpid()}-{time.monotonic_ns()}"
    program = f"import sys; sys.path[1:1] = {sys.path!r}; from videogen_testing import forks; forks.serve({address!r})"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout
    if not select.select([server.stdout], [], [], HANGS)[0] or server.stdout.readline() != b"ready\n":
        server.kill()
        server.communicate()
        raise RuntimeError("the server of forks did not start")
    atexit.register(server.communicate)  # which closes that end, and waits
    return address


def serve(address: str) -> None:
    """Fork a program for each connection that sends a command line -> its pid, and once it has ended its exit code."""
    _address.append(address)
    for module in _MODULES:
        importlib.import_module(module)
    gc.freeze()  # what is there stays for ever; and children do not copy it, only to look through it
    assert len(list(Path("/proc/self/task").iterdir())) == 1, f"threads run: {threading.enumerate()}"
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the tests
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(64)
        os.write(1, b"ready\n")
        server = _Server(listener, woken)
        server.run()
        server.end()
    os._exit(0)  # libraries that find fault with each other in the end have nothing to say here


class _Server:
    def __init__(self, listener: socket.socket, woken: int) -> None:
        self._listener, self._woken = listener, woken
        self._running: dict[int, tuple[socket.socket, int]] = {}  # who asked for a pid: its connection, its pid
        self._ended: dict[socket.socket, int] = {}  # zombies: who has not closed the connection may be about to signal the pid

    def run(self) -> None:
        while True:
            waited: list[Any] = [0, self._woken, self._listener, *self._ended]
            ready = select.select(waited, [], [])[0]
            if self._woken in ready:
                os.read(self._woken, _MOST)
            for connection in self._ended.keys() & set(ready):
                os.waitpid(self._ended.pop(connection), 0)
                connection.close()
            self._tell()
            if self._listener in ready:
                self._serve(self._listener.accept()[0])
            if 0 in ready:
                return

    def end(self) -> None:
        """Let no program outlive the tests."""
        for pid in self._running:  # nobody else reaps them
            os.kill(pid, signal.SIGKILL)
        for pid in self._running:
            os.waitpid(pid, 0)

    def _tell(self) -> None:
        for pid in list(self._running):
            if ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                connection, _ = self._running.pop(pid)
                self._ended[connection] = pid
                code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                with contextlib.suppress(OSError):  # who asked may be gone
                    connection.send(str(code).encode())

    def _serve(self, connection: socket.socket) -> None:
        message, output, _, _ = socket.recv_fds(connection, _MOST, 2)
        if not message:  # who connected is gone
            connection.close()
            return
        asked = json.loads(message)
        if "of" in asked:
            with connection, contextlib.suppress(OSError):
                connection.send(json.dumps([pid for pid, (_, by) in self._running.items() if by == asked["of"]]).encode())
            return
        pid = os.fork()
        if pid == 0:
            _become(asked["command"], asked["environment"], output)
        os.setpgid(pid, pid)  # for killpg; a session would be an autogroup of the scheduler, in which alone nice counts
        for descriptor in output:
            os.close(descriptor)
        by = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)
        self._running[pid] = (connection, by)
        with contextlib.suppress(OSError):
            connection.send(str(pid).encode())


def _become(command: list[str], environment: dict[str, str], output: list[int]) -> NoReturn:
    """In the child: run the program to its end."""
    code = 1
    try:
        _be_new(environment, output)
        run_program(command)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - printed, as an interpreter does it
        traceback.print_exc()
    finally:
        for last in (threading._shutdown, util._exit_function, sys.stdout.flush):  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                last()
        os._exit(code)


def _be_new(environment: dict[str, str], output: list[int]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for standard, descriptor in zip((1, 2), output, strict=True):
        os.dup2(descriptor, standard)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()  # noqa: NPY002 - libraries draw from it, and forks would draw the same
    agent = importlib.import_module("torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler")
    agent.Popen = Fork  # type: ignore[attr-defined]


def run_program(command: list[str]) -> None:
    """As `python` with these arguments: `-u`, then `-m` and a module, `-c` and code, or a file."""
    if command[0] == "-u":
        assert hasattr(sys.stdout, "reconfigure")
        sys.stdout.reconfigure(write_through=True)
        command = command[1:]
    match command:
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))
        case [file, *rest]:
            sys.argv = [file, *rest]
            runpy.run_path(str(Path(file)), run_name="__main__")
