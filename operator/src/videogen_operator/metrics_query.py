"""The only module that talks to Prometheus: instant queries that must give one number."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

import aiohttp

from videogen_operator.plan import Query, Unavailable

TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=2)


class Prometheus:
    """A Prometheus server; with an empty URL every answer is Unavailable."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def ask(self, queries: Iterable[Query]) -> dict[str, float | Unavailable]:
        """Answers by the query's name. Never raises: what cannot be read is Unavailable with a reason."""
        asked = tuple(queries)
        if not asked:
            return {}
        if not self._url:
            return {query.name: Unavailable("no Prometheus is configured; set the chart's prometheus.url") for query in asked}
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            answers = await asyncio.gather(*(self._one(session, query) for query in asked))
        return dict(zip((query.name for query in asked), answers, strict=True))

    async def _one(self, session: aiohttp.ClientSession, query: Query) -> float | Unavailable:
        try:
            async with session.post(f"{self._url}/api/v1/query", data={"query": query.promql}) as response:
                if response.status != 200:
                    return Unavailable(f"Prometheus answered {response.status}: {(await response.text())[:200]}")
                return number(await response.json())
        except TimeoutError:
            return Unavailable(f"Prometheus did not answer within {TIMEOUT.total:.0f} s")
        except (aiohttp.ClientError, ValueError) as error:
            return Unavailable(f"Prometheus cannot be read: {error}")


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
