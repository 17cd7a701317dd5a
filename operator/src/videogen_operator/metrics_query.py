"""The only module that talks to Prometheus, or to what answers its API: instant queries that must give one number."""

from __future__ import annotations

import asyncio
import math
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from videogen_operator.plan import Query, Unavailable

TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a Prometheus asks of whoever asks it. Files may change at any time, as a mounted Secret does."""

    token_file: Path | None = None  # bearer token
    ca_file: Path | None = None  # PEM, the authorities that it is verified by; None: the system's
    headers: Mapping[str, str] = field(default_factory=dict)


class Prometheus:
    """A Prometheus server; with an empty URL every answer is Unavailable."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        self._url, self._access = url.rstrip("/"), access or Access()
        self._trusted: tuple[object, ssl.SSLContext | bool] = (None, True)  # the file's state, and what was read of it

    async def ask(self, queries: Iterable[Query]) -> dict[str, float | Unavailable]:
        """Answers by the query's name. Never raises: what cannot be read is Unavailable with a reason."""
        asked = tuple(queries)
        if not asked:
            return {}
        if not self._url:
            return {query.name: Unavailable("no Prometheus is configured; set the chart's prometheus.url") for query in asked}
        try:
            headers, context = self._headers(), self._context()
        except (OSError, ValueError) as error:
            said = Unavailable(f"what Prometheus asks for cannot be read; look at the chart's prometheus.existingSecret: {error}")
            return {query.name: said for query in asked}
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(timeout=TIMEOUT, headers=headers, connector=connector) as session:
            answers = await asyncio.gather(*(self._one(session, query) for query in asked))
        return dict(zip((query.name for query in asked), answers, strict=True))

    async def _one(self, session: aiohttp.ClientSession, query: Query) -> float | Unavailable:
        try:  # a redirect is not followed: the token is for this server
            async with session.post(f"{self._url}/api/v1/query", data={"query": query.promql}, allow_redirects=False) as response:
                if response.status != 200:
                    return Unavailable(f"Prometheus answered {response.status}: {(await response.text())[:200]}")
                return number(await response.json())
        except TimeoutError:
            return Unavailable(f"Prometheus did not answer within {TIMEOUT.total:.0f} s")
        except (aiohttp.ClientError, ValueError) as error:
            return Unavailable(f"Prometheus cannot be read: {error}")

    def _headers(self) -> dict[str, str]:
        """Raises OSError or ValueError if the token cannot be read."""
        if self._access.token_file is None:
            return dict(self._access.headers)
        token = self._access.token_file.read_text(encoding="ascii").strip()
        if not token or any(char.isspace() for char in token):
            raise ValueError(f"{self._access.token_file} holds no bearer token")
        return {**self._access.headers, "Authorization": f"Bearer {token}"}

    def _context(self) -> ssl.SSLContext | bool:
        """Whom to trust; the file is parsed only when it has changed. Raises OSError if it holds no authority."""
        if self._access.ca_file is None:
            return True
        found = os.stat(self._access.ca_file)  # of the file that a mounted Secret's links lead to
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._trusted[0] != state:
            self._trusted = (state, ssl.create_default_context(cafile=self._access.ca_file))
        return self._trusted[1]


def number(answer: Any) -> float | Unavailable:
    """The one finite number in an answer of /api/v1/query (vector or scalar)."""
    try:
        data = answer["data"]
        values = [data["result"]] if data["resultType"] == "scalar" else [item["value"] for item in data["result"]]
        if not values:
            return Unavailable("Prometheus has no data")
        if len(values) > 1:
            return Unavailable(f"the query gave {len(values)} series and must give one")
        value = float(values[0][1])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return Unavailable(f"Prometheus gave an answer of an unknown form: {error!r}")
    return value if math.isfinite(value) else Unavailable(f"the value is {value}")
