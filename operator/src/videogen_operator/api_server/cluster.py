"""The only module that talks to the API server: lists, applies, creates, deletes, writes status, records events.

Every write goes through the fence first, so that a replica that has lost its Lease writes nothing; and it is given up
when the Lease ends, so that it does not land after another replica has taken over.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from io import BytesIO
from types import TracebackType
from typing import Any, Self

import aiohttp
import kopf

from videogen_api.meta import FIELD_MANAGER, GROUP
from videogen_operator.api_server.intent import contains, digest_of, marked
from videogen_operator.api_server.status_patch import recreated
from videogen_operator.api_server.world import ObjectWorld, trim
from videogen_operator.names import ANNOTATION_APPLIED, MANAGED_BY
from videogen_operator.plan import Manifest, Note, Ref, Resource, StatusWrite
from videogen_operator.steady_clock import ServerClock
from videogen_operator.telemetry import NO_ANSWER, REQUESTS

REMEMBERED_APPLIED = 20_000  # objects, deleted ones among them
PAGE = 100  # objects; a large page would be a peak of memory that is never given back
LONGEST_PAGE = 8 * 1024 * 1024  # bytes; anybody's objects may have 1.5 MB each, and take ten times as much while they are read
REQUEST_SECONDS = 30.0
CREDENTIALS_SECONDS = 60.0
EVENT_PAUSES = (0.2, 0.5, 1.0)  # seconds before an Event that was not taken is sent again
EVENT_SECONDS = 10.0
PATIENCE_SECONDS = 5.0  # that the API server may ask us to wait in all, before one request fails
LIST_PATIENCE_SECONDS = 30.0  # a list that fails means that all of them are read again
PUT_OFF = frozenset({429, 503})
JSON, JSON_PATCH, APPLY = "application/json", "application/json-patch+json", "application/apply-patch+yaml"


class ApiError(Exception):
    """The API server refused a request; `retry_after`: seconds that it asked us to wait, None if it did not."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after

    @property
    def is_of_an_ending_namespace(self) -> bool:
        """Whether nothing can be created because the namespace is being deleted, and everything in it goes
        (k8s.io/apiserver, plugin/namespace/lifecycle).
        """
        return self.code == 403 and "because it is being terminated" in self.message


class LongAnswerError(Exception):
    """The answer has more bytes than whoever asked wants to hold."""


class Cluster:
    """A connection to the API server; use it as an async context manager."""

    def __init__(self, login: Callable[[], kopf.ConnectionInfo], resources: Iterable[Resource], world: ObjectWorld) -> None:
        self._login, self._world, self.clock = login, world, ServerClock()
        self._resources = {resource.kind: resource for resource in resources}
        self._connection, self._connected_at = login(), time.monotonic()
        self._applied: dict[str, tuple[str, str]] = {}  # UID -> hash of the intent, resourceVersion of its answer
        self.fence: Callable[[], float] = lambda: REQUEST_SECONDS  # how long a write may last; raises if none may begin
        self.told: Callable[[Manifest], None] = lambda _: None  # hears of what we have read or written, as of an event

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=64, ssl=self._connection.as_ssl_context())
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=5))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def request(
        self,
        verb: str,
        path: str,
        *,
        body: object = None,
        content: str = JSON,
        query: Mapping[str, str] | None = None,
        patience: float = PATIENCE_SECONDS,
        longest: int | None = None,
    ) -> Any:
        """One request, sent again when the API server says when (Retry-After), if it asks for at most `patience` seconds in all.

        Raises ApiError for an answer >= 400 or without JSON, aiohttp.ClientError and TimeoutError without an answer,
        LongAnswerError for one of more than `longest` bytes, the rest of which is not read.
        """
        while True:
            try:
                return await self._once(verb, path, body, content, query, longest)
            except ApiError as error:
                if error.retry_after is None or error.retry_after > patience:
                    raise
                patience -= error.retry_after
                await asyncio.sleep(error.retry_after)

    async def _once(self, verb: str, path: str, body: object, content: str, query: Mapping[str, str] | None, longest: int | None) -> Any:
        headers, server = {"Content-Type": content, "Accept": JSON} | self._authorization(), self._connection.server.rstrip("/")
        # As a file, which is sent in pieces: a status may have more than a megabyte.
        data = None if body is None else BytesIO(json.dumps(body, separators=(",", ":")).encode())
        code = NO_ANSWER
        try:
            async with self._session.request(verb, server + path, params=query, data=data, headers=headers) as response:
                self.clock.hear(response.headers.get("Date", ""))
                answer = await _read(response, longest)
                code = str(response.status)
        finally:
            REQUESTS.labels(verb, _resource_of(path), code).inc()
        if response.status == 401:
            self._connected_at = float("-inf")
        if response.status >= 400:
            raise _error(response.status, response.reason or "", answer, response.headers.get("Retry-After"))
        return _content(response.status, answer)

    async def pages(self, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        """All objects of a resource in small pages, each with the version at which the whole list is read. A page with too many
        bytes is asked for again with fewer objects.
        """
        query, limit, path = {"labelSelector": resource.selector} if resource.selector else {}, PAGE, path_of(resource, namespace or "")
        while True:
            longest = LONGEST_PAGE if limit > 1 else None
            try:
                part = query | {"limit": str(limit)}
                answer = await self.request("GET", path, query=part, patience=LIST_PATIENCE_SECONDS, longest=longest)
            except LongAnswerError:
                limit = max(1, limit // 4)
                continue
            limit = min(PAGE, 2 * limit)
            head = {"apiVersion": resource.api_version, "kind": resource.kind}
            yield [head | item for item in answer["items"]], answer["metadata"]["resourceVersion"]
            if not (following := answer["metadata"].get("continue")):
                return
            query["continue"] = following

    async def serves(self, resource: Resource) -> bool:
        """Whether discovery names the resource; also if it says nothing that can be understood. Raises as `request` does."""
        try:
            answer = await self.request("GET", _root_of(resource))
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        understood = isinstance(answer, Mapping) and answer.get("kind") == "APIResourceList"
        return not understood or any(one["name"] == resource.plural for one in answer["resources"] or ())

    async def get(self, kind: str, namespace: str, name: str) -> Manifest:
        """One object as it is now, also remembered in the world. Raises ApiError with code 404 if there is none."""
        item: Manifest = await self.request("GET", path_of(self._resources[kind], namespace, name))
        self._stored(item)
        return item

    async def apply(self, manifest: Manifest) -> bool:
        """Server-side apply of a full intent; True if it changed something. Refuses to adopt what is not ours (409)."""
        namespace, name = manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]
        digest = digest_of(manifest)
        found = self._world.get(manifest["kind"], namespace, name) or await self._find(manifest["kind"], namespace, name)
        if found is not None:
            refuse_foreign(manifest, found)
            if self._is_applied(found, manifest, digest):
                return False
        guard = {"uid": found["metadata"]["uid"]} if found is not None else {}
        body = marked(manifest, digest, **guard)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = path_of(self._resources[manifest["kind"]], namespace, name)
        answer = await self._write("PATCH", path, body=body, content=APPLY, query=query)
        self._remember(answer["metadata"]["uid"], digest, answer["metadata"]["resourceVersion"])
        return self._stored(answer)

    async def create(self, manifest: Manifest) -> bool:
        """Create an object, or find that it exists and is ours. Raises ApiError 409 if it is not ours.

        One of a kind that is never read, a job file, is not read here either: its name has part of its
        digest, and the pod that reads it knows the whole. One that is applied later is marked as if it had been applied.
        """
        namespace, name = manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]
        resource = self._resources[manifest["kind"]]
        is_applied_later = any(annotation == ANNOTATION_APPLIED for annotation, _ in resource.annotations)
        body = marked(manifest, digest_of(manifest)) if is_applied_later else manifest
        try:
            answer = await self._write("POST", path_of(resource, namespace), body=body, query={"fieldManager": FIELD_MANAGER})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            if self._world.knows(manifest["kind"]):
                refuse_foreign(manifest, await self.get(manifest["kind"], namespace, name), seen_again=not is_applied_later)
        else:
            self._stored(answer)
        return True

    async def delete(self, ref: Ref) -> bool:
        """Delete exactly the object with this UID, children in the background; False if it is gone already."""
        path = path_of(self._resources[ref.kind], ref.namespace, ref.name)
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": ref.uid}, "propagationPolicy": "Background"}
        item = {"kind": ref.kind, "metadata": {"namespace": ref.namespace, "name": ref.name, "uid": ref.uid}}
        try:
            answer = await self._write("DELETE", path, body=body)
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
            answer = {}
        is_held = answer.get("kind") == ref.kind and answer["metadata"].get("deletionTimestamp")  # by a finalizer
        return self._stored(answer) if is_held else self._world.remove(item)

    async def write_status(self, write: StatusWrite) -> None:
        """State the whole status but others' conditions. Raises ApiError 409 if the object has changed since it was observed.

        Server-side apply leaves what others own, also where it contradicts the status: fields that were written in another way
        once, by an older operator or when a backup was restored. A second write removes these.
        """
        item, resource = write.object, self._resources[write.object["kind"]]
        path = path_of(resource, item["metadata"].get("namespace", ""), item["metadata"]["name"]) + "/status"
        identity = {key: item["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": identity, "status": write.status}
        try:
            answer = await self._write("PATCH", path, body=body, content=APPLY, query={"fieldManager": FIELD_MANAGER, "force": "true"})
        except ApiError as error:
            # An apply that empties a list which it filled before leaves null there, which the schema refuses.
            answer = await self._as_observed(item, path.removesuffix("/status"), error)
        if trim(answer, resource).get("status") != write.status:
            patch = recreated(answer, write, resource)
            answer = await self._write("PATCH", path, body=patch, content=JSON_PATCH, query={"fieldManager": FIELD_MANAGER})
        self._stored(answer)

    async def _as_observed(self, item: Manifest, path: str, error: ApiError) -> Any:
        """The whole object, if its status was refused as invalid and nobody has changed it since it was observed; else an error."""
        if error.code != 422:
            raise error
        found = await self.request("GET", path)
        if any(found["metadata"][key] != item["metadata"][key] for key in ("uid", "resourceVersion")):
            raise ApiError(409, "Conflict", "it has changed since it was observed") from error
        return found

    async def record(self, event: Manifest) -> None:
        """Create an Event; the same note about the same object has the same name, so it is there once.

        It is sent again after an error that may pass: the status that it speaks of is written already, so no later pass
        would say it. Raises ApiError, aiohttp.ClientError or TimeoutError when that was in vain.
        """
        async with asyncio.timeout(EVENT_SECONDS):
            for pause in EVENT_PAUSES:
                try:
                    await self._record(event)
                except (ApiError, aiohttp.ClientError) as error:
                    if isinstance(error, ApiError) and error.code != 429 and error.code < 500:
                        raise
                    await asyncio.sleep(pause)
                else:
                    return
            await self._record(event)

    async def _record(self, event: Manifest) -> None:
        try:
            await self._write("POST", path_of(self._resources["Event"], event["metadata"]["namespace"]), body=event)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    def _stored(self, item: Manifest) -> bool:
        """Take over an answer; its event, which will be no news any more, is told here."""
        if not self._world.knows(item["kind"]):
            return True  # it is not watched, so nobody would ever take it out of the world again
        if not self._world.store(item):
            return False
        self.told(item)
        return True

    async def _find(self, kind: str, namespace: str, name: str) -> Manifest | None:
        try:
            return await self.get(kind, namespace, name)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def _write(self, verb: str, path: str, **keywords: Any) -> Any:
        async with asyncio.timeout(self.fence()):
            return await self.request(verb, path, **keywords)

    def _remember(self, uid: str, digest: str, version: str) -> None:
        """The newest stay; one that was forgotten although its object lives costs a request at most."""
        self._applied.pop(uid, None)
        self._applied[uid] = (digest, version)
        while len(self._applied) > REMEMBERED_APPLIED:
            del self._applied[next(iter(self._applied))]

    def _is_applied(self, found: Manifest, manifest: Manifest, digest: str) -> bool:
        if self._applied.get(found["metadata"]["uid"]) == (digest, found["metadata"].get("resourceVersion")):
            return True
        said = (found["metadata"].get("annotations") or {}).get(ANNOTATION_APPLIED)
        return said == digest and contains(found, manifest)

    def _authorization(self) -> dict[str, str]:
        if time.monotonic() - self._connected_at > CREDENTIALS_SECONDS:
            self._connection, self._connected_at = self._login(), time.monotonic()
        return self._connection.as_http_headers()


async def _read(response: aiohttp.ClientResponse, longest: int | None) -> bytes:
    if longest is None:
        return await response.read()
    answer = bytearray()
    async for piece in response.content.iter_any():
        answer += piece
        if len(answer) > longest:
            raise LongAnswerError
    return bytes(answer)


def path_of(resource: Resource, namespace: str = "", name: str = "") -> str:
    """URL path of a resource, of its objects in a namespace, or of one object."""
    scope = f"/namespaces/{namespace}" if resource.namespaced and namespace else ""
    return f"{_root_of(resource)}{scope}/{resource.plural}" + (f"/{name}" if name else "")


def refuse_foreign(manifest: Manifest, found: Manifest, *, seen_again: bool = False) -> None:
    """Raise ApiError 409 if `found` has the name that we want and another owner: adopting it would run a stranger's content.

    Anybody may name our owner. `seen_again`: it must also have the labels by which we find what we have made, because no apply of ours
    would put them there. The chart's policies let nobody else write them.
    """
    wanted = {owner["uid"] for owner in manifest["metadata"].get("ownerReferences", [])}
    owners = {owner["uid"] for owner in found["metadata"].get("ownerReferences") or []}
    label, value = MANAGED_BY
    labels = found["metadata"].get("labels") or {}
    ours = bool(wanted & owners) if wanted else labels.get(label) == value
    known = {key: text for key, text in manifest["metadata"].get("labels", {}).items() if key.startswith(GROUP + "/")}
    if not ours or (seen_again and wanted and not known.items() <= labels.items()):
        where = f"{found['metadata'].get('namespace', '')}/{found['metadata']['name']}"
        raise ApiError(409, "NotOurs", f"{found['kind']} {where} exists and was not made for this object; delete or rename it")


def event_of(note: Note, now: datetime) -> dict[str, Any]:
    """The Event (events.k8s.io/v1) of a note; its name is a hash of object, reason and message."""
    about = note.object["metadata"]
    digest = hashlib.sha256("\n".join((about.get("uid", ""), note.reason, note.message)).encode()).hexdigest()[:12]
    namespace = about.get("namespace") or "default"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{about['name']}.{digest}", "namespace": namespace},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": GROUP,
        "reportingInstance": FIELD_MANAGER,
        "action": note.reason,
        "reason": note.reason,
        "type": note.type,
        "note": note.message[:1024],
        "regarding": {
            "apiVersion": note.object["apiVersion"],
            "kind": note.object["kind"],
            "namespace": about.get("namespace", ""),
            "name": about["name"],
            "uid": about.get("uid", ""),
        },
    }


def _root_of(resource: Resource) -> str:
    return f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"


def _resource_of(path: str) -> str:
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    return rest[2] if rest[:1] == ["namespaces"] and len(rest) > 2 else (rest[0] if rest else "")


def _content(code: int, answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        raise ApiError(code, "NoJSON", answer[:256].decode(errors="replace")) from None


def _error(code: int, reason: str, answer: bytes, retry_after: str | None) -> ApiError:
    seconds = _seconds(retry_after) if code in PUT_OFF else None
    try:
        status = json.loads(answer)
        return ApiError(code, str(status.get("reason") or reason), str(status.get("message", ""))[:1024], seconds)
    except (ValueError, AttributeError):
        return ApiError(code, reason, answer[:256].decode(errors="replace"), seconds)


def _seconds(retry_after: str | None) -> float | None:
    """Of the header Retry-After, from 1 to 300. The API server writes whole seconds; a proxy's date counts as a second."""
    if retry_after is None:
        return None
    return min(max(1.0, float(retry_after)), 300.0) if retry_after.isdecimal() else 1.0
