"""The keeper's own client of the API server: one kept-alive connection, and watches.

kubectl would be a new process for each look; the keeper looks all the time.
"""

import base64
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

WATCH_SECONDS = 300


class Api:
    """One connection with one kubeconfig of ours (JSON, everything inside)."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]))
            pair.flush()
            self._context.load_cert_chain(pair.name)
        address = urlsplit(cluster["server"])
        self._address = (str(address.hostname), int(address.port or 443))
        self._connection: http.client.HTTPSConnection | None = None

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """One request; raises OSError if the server cannot be asked or refuses."""
        if self._connection is None:
            self._connection = self._connect(10)
        try:
            data = json.dumps(body) if body is not None else None
            self._connection.request(method, path, data, {"Content-Type": content_type})
            return _checked(self._connection.getresponse(), f"{method} {path}")
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._connection = None
            raise OSError(f"{method} {path}: {error}") from error

    def watch(self, path: str, query: str) -> Iterator[dict[str, Any]]:
        """All objects of a list, then every change, until the server ends it.

        The first value is {"type": "LIST", "items": [...]}; the others are the server's own events.
        """
        listed = self.call("GET", f"{path}?{query}")
        yield {"type": "LIST", "items": listed["items"]}
        version = listed["metadata"]["resourceVersion"]
        connection = self._connect(WATCH_SECONDS + 30)
        try:
            connection.request("GET", f"{path}?{query}&watch=true&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}")
            response = connection.getresponse()
            if response.status != 200:
                raise OSError(f"watch {path}: {response.status}")
            while line := response.readline():
                yield json.loads(line)
        except http.client.HTTPException as error:
            raise OSError(f"watch {path}: {error}") from error
        finally:
            connection.close()

    def _connect(self, seconds: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self._address, timeout=seconds, context=self._context)


def _checked(response: http.client.HTTPResponse, what: str) -> Any:
    text = response.read()
    if response.status >= 300:
        raise OSError(f"{what}: {response.status} {text[:300].decode(errors='replace')}")
    return json.loads(text)
