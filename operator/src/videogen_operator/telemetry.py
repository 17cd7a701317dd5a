"""What the operator tells Prometheus, declared in one place. docs/operations.md explains each; a test compares them.

Labels have values of these enumerations, kinds and resources of ours, HTTP's verbs and codes: no request from outside makes series. What
speaks of objects by their names is in `exporter`, and bounded there.
"""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram

DECISION_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
NO_ANSWER = "none"  # in place of an HTTP code: no whole answer has come in time


class Passed(StrEnum):
    """How a pass has ended."""

    DONE = "Done"
    RETRY = "Retry"  # something was refused, and is tried again after a back-off
    UNANSWERED = "Unanswered"  # no answer of the API server has come
    STOPPED = "Stopped"  # the process ends, or no longer leads
    ERROR = "Error"  # unexpected, and tried again


class Written(StrEnum):
    """What has become of a status that was to be written."""

    DONE = "Done"
    GONE = "Gone"  # with its object, or another operator's to write
    CONFLICT = "Conflict"  # the object has changed since it was observed
    FAILED = "Failed"  # refused, or not answered; the pass is repeated


class Listed(StrEnum):
    """What a list of one resource has come to."""

    DONE = "Done"
    ABSENT = "Absent"  # an optional kind that the API server does not serve
    FAILED = "Failed"


class Watching(StrEnum):
    """What became of a request by which a resource is watched: a page of the first list, or the watch itself."""

    BEGUN = "Begun"
    FAILED = "Failed"  # once for each attempt; it is repeated


class Received(StrEnum):
    """What the inbox has answered, beside a kind's answers to alerts."""

    ACCEPTED = "Accepted"  # a report that woke its run
    COALESCED = "Coalesced"  # a report that Prometheus gets at once, and the status with a later one
    SEALED = "Sealed"
    OFF = "Off"
    REFUSED = "Refused"
    UNAUTHORIZED = "Unauthorized"
    UNREVIEWED = "Unreviewed"
    TOO_OFTEN = "TooOften"
    CROWDED = "Crowded"
    TOO_LARGE = "TooLarge"
    INVALID = "Invalid"
    MALFORMED = "Malformed"
    UNDECIDED = "Undecided"


class Closed(StrEnum):
    """Why a port has closed or refused a connection or a request unread."""

    MALFORMED = "Malformed"
    MANY_OF_ONE_ADDRESS = "ManyOfOneAddress"
    MANY_CONNECTIONS = "ManyConnections"
    HANDSHAKE = "Handshake"
    TOO_SLOW = "TooSlow"


REQUESTS = Counter("videogen_api_requests_total", "Requests to the API server, but for watches.", ["verb", "resource", "code"])
PASSES = Counter("videogen_reconcile_total", "Passes by kind and result.", ["kind", "result"])
STATUS_WRITES = Counter("videogen_status_writes_total", "Statuses that were to be written, by kind and result.", ["kind", "result"])
PASS_SECONDS = Histogram(
    "videogen_reconcile_seconds",
    "Duration of a pass, with its wait for others after it has made a job.",
    ["kind"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15),
)
LOOP_LAG = Gauge("videogen_event_loop_lag_seconds", "How much later than asked the event loop woke up, newest value.")
RESYNC_AGE = Gauge("videogen_resync_age_seconds", "Time since all watched objects were last listed with success.")
LISTS = Counter("videogen_lists_total", "Complete lists of a resource by result.", ["resource", "result"])
LIST_AGE = Gauge("videogen_list_age_seconds", "Time since a resource was last listed with success in all namespaces.", ["resource"])
WATCH_REQUESTS = Counter("videogen_watch_requests_total", "Requests by which a resource is watched, by result.", ["resource", "result"])
MALFORMED = Counter("videogen_malformed_objects_total", "Changes of objects that no key could be read from.", ["kind"])
LEADER = Gauge("videogen_leader", "1 while this replica holds the Lease.")
LEASE_TRANSITIONS = Gauge("videogen_lease_transitions", "How often the Lease has gone to another replica, as it says itself.")

HTTP_REFUSED = Counter("videogen_http_refused_total", "Connections and requests that were closed or refused unread.", ["port", "reason"])
PROGRESS = Counter("videogen_progress_reports_total", "Progress reports of trainers by result.", ["result"])
RECORDS = Counter("videogen_records_total", "Results that pods asked to have sealed, by what was answered.", ["result"])
ALERTS = Counter(
    "videogen_alerts_total",
    "Alerts received by result; Unauthorized, Crowded, TooLarge and Invalid are whole requests, Malformed are single alerts.",
    ["result"],
)
ALERT_SECONDS = Histogram("videogen_alert_decision_seconds", "Alert received until its decision is written.", buckets=DECISION_BUCKETS)
