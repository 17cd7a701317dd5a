"""How requests are read and answered, whatever they ask for."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from prometheus_client import Counter
from pydantic import ValidationError

from videogen_operator.telemetry import Received


def json_of(body: bytes) -> Any:
    """The body's value, whatever charset its sender names. Raises ValueError if it is no JSON."""
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def first_problem(error: Exception, *where: str | int) -> str:
    """The first thing that is wrong, with its place, which begins with `where`."""
    if not isinstance(error, ValidationError):
        return str(error)[:300]
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in (*where, *found['loc'])) or 'the body'}: {found['msg']}, found {str(found['input'])[:100]}"


def bearer(request: web.Request) -> str:
    """The token, or nothing; none has other characters than ASCII (RFC 6750, 2.1)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.isascii() else ""


def told(counter: Counter, result: Received, status: int, message: str) -> web.Response:
    """The answer, counted."""
    counter.labels(result).inc()
    return web.json_response({"result": result, "message": message}, status=status)
