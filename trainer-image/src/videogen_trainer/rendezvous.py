"""How the pods of a job meet: by ranks that are known from the start, so that nothing that the network sends is unpickled.

Torch's dynamic rendezvous (c10d) keeps its state as a pickle in a store that everybody who reaches the port may write to. The static
one exchanges only JSON and plain bytes through that store. This is torch's static one, but it waits in Python, which can react to SIGTERM,
and a pod that is alone listens on loopback only. The store itself authenticates nobody: a NetworkPolicy keeps strangers from it.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousParameters, RendezvousStoreInfo, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.api import RendezvousTimeoutError
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from videogen_api.job import ENV_REPLICA_INDEX, Job
from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure

_LOG = logging.getLogger(__name__)
BACKEND = "videogen-static"
LOOPBACK = "127.0.0.1"
ENV_ENDPOINT = "PET_RDZV_ENDPOINT"  # of the pod that all meet at; training-operator sets it for a job with elasticPolicy
_PAUSE = 0.2
_CONNECT = timedelta(seconds=60)


class Meeting(StaticTCPRendezvous):
    """The pods of one attempt, `world_size` of them, meet at the one of rank 0, within `timeout`."""

    def get_backend(self) -> str:
        """The name that it is registered by."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Until all pods are here. Raises RendezvousTimeoutError, or torch's DistError where the pod of rank 0 is gone again."""
        until = time.monotonic() + self.timeout.total_seconds()
        address = LOOPBACK if self.rank == 0 else self.master_addr
        server = self._serve() if self.rank == 0 else self._connect(until)
        store, port = PrefixStore(self.run_id, server), server.port
        store.set(f"here/{self.rank}", "")
        everybody = [f"here/{rank}" for rank in range(self.world_size)]
        while not store.check(everybody):
            if time.monotonic() > until:
                missing = [rank for rank, key in enumerate(everybody) if not store.check([key])]
                raise RendezvousTimeoutError(f"pod {', '.join(map(str, missing))} of {self.world_size} did not come within {self.timeout}")
            time.sleep(_PAUSE)
        return RendezvousInfo(store, self.rank, self.world_size, RendezvousStoreInfo(address, port))

    def _serve(self) -> TCPStore:
        """The store that the others connect to; on loopback if there are none."""
        if self.world_size > 1:
            self._store = TCPStore(LOOPBACK, self.master_port, None, True, self.timeout, False)
        else:  # torch binds to all addresses, unless it is given a socket
            listener = socket.create_server((LOOPBACK, self.master_port))
            port = listener.getsockname()[1]
            self._store = TCPStore(LOOPBACK, port, None, True, self.timeout, False, master_listen_fd=listener.detach())
        return self._store

    def _connect(self, until: float) -> TCPStore:
        """To the pod of rank 0, once it listens. Torch would wait for it too, but in C++, where no handler of SIGTERM runs."""
        _LOG.info("waiting for %s:%d", self.master_addr, self.master_port)
        while True:
            try:
                socket.create_connection((self.master_addr, self.master_port), timeout=1).close()
            except OSError as error:  # it has no address yet, or does not listen yet
                if time.monotonic() > until:
                    message = f"{self.master_addr}:{self.master_port} did not answer within {self.timeout}: {error}"
                    raise RendezvousTimeoutError(message) from None
                time.sleep(_PAUSE)
            else:
                break
        self._store = TCPStore(self.master_addr, self.master_port, None, False, _CONNECT, False)
        self._store.set_timeout(self.timeout)
        return self._store


def handler(parameters: RendezvousParameters) -> Meeting:
    """Made by torch's agent."""
    host, _, port = parameters.endpoint.rpartition(":")
    rank, timeout = int(parameters.config["rank"]), int(parameters.config["timeout"])
    return Meeting(host, int(port), rank, parameters.max_nodes, parameters.run_id, timeout)


rendezvous_handler_registry.register(BACKEND, handler)


def place(job: Job, environment: Mapping[str, str]) -> tuple[str, int]:
    """Where the pods meet, host:port, and which of them this one is, from 0. Raises Failure(InvalidJob) if that is not known."""
    if job.workers == 1:
        return f"{LOOPBACK}:0", 0
    endpoint, index = environment.get(ENV_ENDPOINT, ""), environment.get(ENV_REPLICA_INDEX, "")
    host, _, port = endpoint.rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        raise Failure(
            Reason.INVALID_JOB,
            f"workers is {job.workers}, but {ENV_ENDPOINT} is {endpoint!r}; several pods need host:port, as elasticPolicy gives it",
        )
    if not (index.isascii() and index.isdigit() and int(index) < job.workers):
        raise Failure(
            Reason.INVALID_JOB,
            f"workers is {job.workers}, but {ENV_REPLICA_INDEX} is {index!r}; expected the pod's replica index, 0 to {job.workers - 1}",
        )
    return endpoint, int(index)
