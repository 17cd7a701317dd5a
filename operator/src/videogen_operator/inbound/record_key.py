"""`python3 -m videogen_operator.inbound.record_key`: there is a Secret with a key that seals records, made once and then left alone.

The chart runs it before an installation or upgrade. A Secret that is there stays as it is: an administrator may have brought it from
another cluster, or have exchanged its key. Exit codes: 0, or 1 with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import secrets
import sys
from datetime import UTC, datetime

import aiohttp

from videogen_operator.api_server.cluster import ApiError, Cluster
from videogen_operator.api_server.login import connection
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.names import MANAGED_BY
from videogen_operator.seals import LEAST_BYTES


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="videogen_operator.inbound.record_key", description=__doc__)
    parser.add_argument("--namespace", required=True, help="of the Secret")
    parser.add_argument("--secret", required=True, help="its name")
    wanted = parser.parse_args()
    try:
        print(f"key of records: {asyncio.run(_ensure(wanted.namespace, wanted.secret))}")
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        print(f"key of records: {error}", file=sys.stderr)
        sys.exit(1)


async def _ensure(namespace: str, secret: str) -> str:
    async with Cluster(connection, (), ObjectWorld(())) as cluster:
        return await ensure(cluster, namespace, secret, datetime.now(UTC))


async def ensure(cluster: Cluster, namespace: str, secret: str, now: datetime) -> str:
    """Make the Secret unless it is there; returns what was done. Raises ApiError, aiohttp.ClientError or TimeoutError."""
    place = f"/api/v1/namespaces/{namespace}/secrets"
    try:
        await cluster.request("GET", f"{place}/{secret}")
    except ApiError as error:
        if error.code != 404:
            raise
    else:
        return f"Secret {secret} is there"
    label, value = MANAGED_BY
    key_id = now.strftime("key-%Y%m%d")
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret, "labels": {label: value}},
        "type": "Opaque",
        "data": {key_id: base64.b64encode(secrets.token_bytes(LEAST_BYTES)).decode()},
    }
    try:
        await cluster.request("POST", place, body=body)
    except ApiError as error:
        if error.code != 409:
            raise
        return f"Secret {secret} is there"  # somebody else was faster
    return f"Secret {secret} was made, with key {key_id}; keep a copy of it with the backups of the storage"


if __name__ == "__main__":
    main()
