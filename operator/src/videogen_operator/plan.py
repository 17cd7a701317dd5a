"""The values that pass between observing, planning and applying. No I/O, no clock, no Kubernetes client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel

from videogen_operator.seals import Seals

Manifest = Mapping[str, Any]
O = TypeVar("O")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What one loop decides about: a kind's name with namespace and name (of an object, or of a service)."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Ref:
    """An observed object to delete; the UID is the precondition, so that a namesake survives."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Note:
    """An intent with its reason: becomes a log line and an Event on the object, after the status was written."""

    object: Manifest  # the object that the event is about (apiVersion, kind, metadata.name/namespace/uid are read)
    reason: str  # CamelCase, from the kind's Reason vocabulary or a past participle such as JobCreated
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """The complete new status of one object, but for conditions of types that are others' (`Resource.conditions`)."""

    object: Manifest  # the object as observed; its resourceVersion guards the write
    status: Manifest


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass wants: carried out in the order apply, create, beside, delete, statuses, notes.

    A refused write of `apply` or `create` ends the writing of objects; one of `beside` or `delete` keeps nothing else
    from being done. After any of them the shell asks for the plan again, with the Failures in its Inputs, and carries
    out only the statuses and notes of that second plan. So a plan without failures may state what its own writes bring
    about, and a plan with failures must not.
    """

    apply: tuple[Manifest, ...] = ()  # server-side apply of full intents; an unchanged one costs no request
    create: tuple[Manifest, ...] = ()  # made once: POST; one that exists and is ours is a success, whatever it says
    beside: tuple[Manifest, ...] = ()  # as `apply`, each on its own
    delete: tuple[Ref, ...] = ()
    statuses: tuple[StatusWrite, ...] = ()
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None  # seconds; None: only when something changes
    answers: Mapping[str, str] = field(default_factory=dict)  # alert fingerprint -> what was decided, e.g. "RolledBack", "NotServing"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A failed external read, as data: the plan decides what it means."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An apply, create or delete that the API server refused in this pass.

    Code 409 also if the name is taken by an object that is not ours.
    """

    kind: str
    name: str
    code: int
    message: str
    retry_after: float = 0.0  # seconds that it asked us to wait


@dataclass(frozen=True, slots=True)
class Query:
    """A question to Prometheus: an instant query that must give one number."""

    name: str
    promql: str


@dataclass(frozen=True, slots=True)
class Index:
    """By what objects of a kind are looked up, so that no event visits all of them."""

    kind: str
    name: str
    values: Callable[[Manifest], Iterable[object]]  # what an object is found by; only texts count


class World(Protocol):
    """Read-only view of the watched objects, as dicts. Reads never block, and but for `read` never fail."""

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """The object of that kind and name, or None; namespace is '' for cluster-scoped kinds."""

    def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> tuple[Manifest, ...]:
        """Objects of a kind, sorted by namespace and name, filtered by namespace and equality of labels."""

    def find(self, index: Index, value: str, namespace: str | None = None) -> tuple[Manifest, ...]:
        """Objects that the index has under the value, sorted by namespace and name."""

    def read(self, model: type[M], item: Manifest, field: str) -> M:
        """`spec` or `status` of an object as that model, the same for everybody who asks. Raises pydantic.ValidationError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a plan may know beside the watched objects."""

    now: datetime  # timezone-aware, UTC
    measurements: Mapping[str, float | Unavailable] = field(default_factory=dict)  # by Query.name
    progress: Mapping[str, Manifest] = field(default_factory=dict)  # by pod UID: last trainerStatus received
    # ModelRelease: {fingerprint, sender, startsAt, receivedAt, clockAhead, labels, annotations}, until answered
    alerts: tuple[Manifest, ...] = ()
    failures: tuple[Failure, ...] = ()  # what the API server refused in this pass, see Plan
    settings: Mapping[str, str] = field(default_factory=dict)  # images, gateway, ...: see settings.py
    seals: Seals = field(default_factory=Seals)  # by which records are known that this operator has sealed


@dataclass(frozen=True, slots=True)
class Resource:
    """A watched resource of the Kubernetes API."""

    group: str  # "" is the core group
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    optional: bool = False  # True: its CRD may be absent, which must not stop the operator
    selector: str = ""  # label selector of lists and watches
    keep: tuple[str, ...] = ()  # dotted paths kept in memory beside apiVersion, kind and metadata (`list[].field`); (): everything
    owners: frozenset[str] = frozenset()  # kinds; not empty: only objects that one of them controls are kept in memory
    bare: bool = False  # True: only that it exists is known: its name and UID
    annotations: tuple[tuple[str, int], ...] = ()  # kept in memory (`prefix/`: all of that prefix) up to so many characters of 256 KiB
    conditions: frozenset[str] = frozenset()  # types of conditions that are ours to read and write; not empty: others' are left alone

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """How a kind takes alerts. Answers are `Plan.answers`."""

    key_of: Callable[[Manifest, World], Key | None]  # whose decision the alert asks for; None: it names nothing
    unknown: str  # answer to an alert that names nothing
    again: frozenset[str] = frozenset()  # answers after which it must be sent again
    advice: Mapping[str, str] = field(default_factory=dict)  # what to do, by answer


@dataclass(frozen=True, slots=True)
class Gauge:
    """What is told of each object of a kind; the first label is the namespace."""

    name: str
    documentation: str
    labels: tuple[str, ...]


Sample = tuple[Gauge, tuple[str, ...], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[O]):
    """What the shell needs to know about one kind of decision; `O` is its frozen snapshot (`observed.py`).

    All functions are pure. `observe` returns None when nothing is left to decide, which ends the loop of the key.
    `plan` sees the same alert again in each pass until it gives an answer to its fingerprint. `record` raises ValueError, with why, if what
    the pod says may not be sealed.
    """

    name: str  # Key.kind
    resources: tuple[Resource, ...]  # everything it reads; the shell watches and lists them
    keys: Callable[[Manifest, World], Iterable[Key]]  # object that changed (with `kind`) -> loops to wake
    observe: Callable[[World, Key], O | None]
    queries: Callable[[O, Inputs], tuple[Query, ...]]  # asked before each plan; the Inputs have all but the measurements
    plan: Callable[[O, Inputs], Plan]
    finish: Callable[[Plan, Inputs, datetime], Plan] = lambda plan, _, __: plan  # what only the end of the writing shows, such as its time
    alerts: Alerts | None = None
    reporter: Callable[[Manifest], Key | None] = lambda _: None  # whose loop a report of this pod's progress wakes
    is_news: Callable[[World, Manifest, Manifest], bool] = lambda *_: True  # whether a pass would make something of that pod's report
    with_reports: Callable[[World, Manifest, Mapping[str, Manifest]], Manifest] = lambda _, item, __: item  # for `samples`; by pod UID
    record: Callable[[World, Manifest, Any, datetime], Manifest] | None = None  # what a pod has computed, from what it says; see below
    indexes: tuple[Index, ...] = ()  # all that its functions look up by
    reads: Mapping[str, Callable[[Manifest], object]] = field(default_factory=dict)  # by kind of object: all that its functions read of one
    gauges: tuple[Gauge, ...] = ()
    samples: Callable[[Manifest], Iterable[Sample]] = lambda _: ()  # of an object of the kind's name
