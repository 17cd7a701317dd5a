"""What the operator tells Prometheus, declared in one place."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

DECISION_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

REQUESTS = Counter("videogen_api_requests_total", "Requests to the API server.", ["verb", "resource", "code"])
PASSES = Counter("videogen_reconcile_total", "Passes by kind and result.", ["kind", "result"])
PASS_SECONDS = Histogram(
    "videogen_reconcile_seconds",
    "Duration of a pass, with its wait for others after it has made a job.",
    ["kind"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15),
)
QUEUE_DEPTH = Gauge("videogen_reconcile_queue_depth", "Keys that wait for their pass.")
LOOP_LAG = Gauge("videogen_event_loop_lag_seconds", "How much later than asked the event loop woke up, newest value.")
RESYNC_AGE = Gauge("videogen_resync_age_seconds", "Time since all watched objects were last listed with success.")
MALFORMED = Counter("videogen_malformed_objects_total", "Changes of objects that no key could be read from.", ["kind"])
LEADER = Gauge("videogen_leader", "1 while this replica holds the Lease.")

HTTP_REFUSED = Counter("videogen_http_refused_total", "Connections and requests that were closed or refused unread.", ["port", "reason"])
PROGRESS = Counter("videogen_progress_reports_total", "Progress reports of trainers by result.", ["result"])
RECORDS = Counter("videogen_records_total", "Results that pods asked to have sealed, by what was answered.", ["result"])
ALERTS = Counter(
    "videogen_alerts_total",
    "Alerts received by result; Unauthorized, Crowded, TooLarge and Invalid are whole requests, Malformed are single alerts.",
    ["result"],
)
ALERT_SECONDS = Histogram("videogen_alert_decision_seconds", "Alert received until its decision is written.", buckets=DECISION_BUCKETS)
