"""`python3 -m videogen_operator.inbound.inbox_certificate`: the inbox has a certificate, made once and renewed long before its end.

The chart runs it before an installation or upgrade, and every week. The Secret holds the authority, its key and the server's
certificate; the ConfigMap holds the authority's certificate alone, for those who connect. Several may run at once: the
API server takes the first one's write, and the others find it. Exit codes: 0, or 1 with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp

from videogen_operator.api_server.cluster import ApiError, Cluster
from videogen_operator.api_server.login import connection
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.authority import CA_CERTIFICATE, Files, ensured
from videogen_operator.names import MANAGED_BY

TRIES = 5  # each after somebody else has written in between


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Where it is kept, and whom it names."""

    namespace: str
    secret: str
    authority: str  # ConfigMap
    names: Sequence[str]  # DNS names and IP addresses


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="videogen_operator.inbound.inbox_certificate", description=__doc__)
    for option, meaning in {"namespace": "of both", "secret": "Secret with keys", "authority": "ConfigMap for those who connect"}.items():
        parser.add_argument(f"--{option}", required=True, help=meaning)
    parser.add_argument("--name", dest="names", action="append", required=True, help="DNS name or IP address of the inbox; repeatable")
    wanted = Wanted(**vars(parser.parse_args()))
    try:
        print(f"inbox certificate: {asyncio.run(_ensure(wanted))}")
    except (ApiError, aiohttp.ClientError, TimeoutError, ValueError) as error:
        print(f"inbox certificate: {error}", file=sys.stderr)
        sys.exit(1)


async def _ensure(wanted: Wanted) -> str:
    async with Cluster(connection, (), ObjectWorld(())) as cluster:
        return await ensure(cluster, wanted, datetime.now(UTC))


async def ensure(cluster: Cluster, wanted: Wanted, now: datetime) -> str:
    """Make, renew or leave alone what is there; returns what was done.

    Raises ApiError, aiohttp.ClientError or TimeoutError, and ValueError if the Secret or the ConfigMap is somebody else's.
    """
    done = ""
    for _ in range(TRIES):
        try:
            files, said = await _secret(cluster, wanted, now)
            done = done or said  # a later try finds the Secret of this one good
            await _authority(cluster, wanted, files[CA_CERTIFICATE].decode())
        except ApiError as error:
            if error.code != 409:
                raise
        else:
            return done
    raise ValueError(f"Secret {wanted.namespace}/{wanted.secret} has changed {TRIES} times while it was written; run this again")


async def _secret(cluster: Cluster, wanted: Wanted, now: datetime) -> tuple[Files, str]:
    place = f"/api/v1/namespaces/{wanted.namespace}/secrets"
    found = await _find(cluster, f"{place}/{wanted.secret}")
    old = {key: base64.b64decode(value) for key, value in (found or {}).get("data", {}).items()}
    new = ensured(old, wanted.names, now)
    if new == old:
        return new, f"Secret {wanted.secret} is good"
    body = _made("Secret", wanted.secret, found) | {
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value).decode() for key, value in new.items()},
    }
    await _write(cluster, place, body, found)
    return new, f"Secret {wanted.secret} was {'renewed' if found else 'made'} for {', '.join(wanted.names)}"


async def _authority(cluster: Cluster, wanted: Wanted, certificate: str) -> None:
    place = f"/api/v1/namespaces/{wanted.namespace}/configmaps"
    found = await _find(cluster, f"{place}/{wanted.authority}")
    data = {CA_CERTIFICATE: certificate}
    if found is None or found.get("data") != data:
        await _write(cluster, place, _made("ConfigMap", wanted.authority, found) | {"data": data}, found)


async def _find(cluster: Cluster, path: str) -> Any:
    try:
        return await cluster.request("GET", path)
    except ApiError as error:
        if error.code == 404:
            return None
        raise


def _made(kind: str, name: str, found: Any) -> dict[str, Any]:
    """Head of the new object; the version of the one that it replaces guards the write."""
    label, value = MANAGED_BY
    if found is not None and (found["metadata"].get("labels") or {}).get(label) != value:
        raise ValueError(f"{kind} {name} has no label {label}={value}, so it was not made by this program; delete or rename it")
    guard = {"resourceVersion": found["metadata"]["resourceVersion"]} if found else {}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": {label: value}} | guard}


async def _write(cluster: Cluster, place: str, body: dict[str, Any], found: Any) -> None:
    if found is None:
        await cluster.request("POST", place, body=body)
    else:
        await cluster.request("PUT", f"{place}/{body['metadata']['name']}", body=body)


if __name__ == "__main__":
    main()
