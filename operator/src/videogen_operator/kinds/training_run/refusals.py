"""Why the API server refused an object of the run. Each cause has another cure, so each is a reason of its own.

The server says most of them in its message alone; the words are those of Kubernetes' own admission code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from videogen_api.training_run import Reason
from videogen_operator.plan import Failure


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to be refused."""

    holds: Callable[[Failure], bool]
    reason: Reason
    advice: str


def _says(pattern: str) -> Callable[[Failure], bool]:
    return lambda failure: re.search(pattern, failure.message) is not None


def _has_code(*codes: int) -> Callable[[Failure], bool]:
    return lambda failure: failure.code in codes


def cause_of(failure: Failure) -> Cause:
    """The first cause that fits."""
    return next(cause for cause in CAUSES if cause.holds(failure))


CAUSES: tuple[Cause, ...] = (
    Cause(
        lambda failure: (failure.kind, failure.code) == ("PyTorchJob", 404),
        Reason.TRAINING_OPERATOR_NOT_INSTALLED,
        "the cluster knows no PyTorchJobs (kubeflow.org/v1); install the Kubeflow training-operator",
    ),
    Cause(_has_code(429), Reason.RATE_LIMITED, "the API server has too many requests; this one is sent again"),
    Cause(  # plugin/pkg/admission/resourcequota
        _says(r"(exceeded|failed|status unknown for) quota"),
        Reason.QUOTA_EXCEEDED,
        "raise the ResourceQuota of the namespace, or wait until something else in it has ended",
    ),
    Cause(  # webhooks: `denied the request`; ValidatingAdmissionPolicy: `denied request`
        _says(r"denied (the )?request"),
        Reason.ADMISSION_DENIED,
        "whoever administers that webhook or policy can say what it accepts",
    ),
    Cause(
        _says(r"failed calling webhook .*training-operator"),
        Reason.TRAINING_OPERATOR_UNAVAILABLE,
        "the webhook of the Kubeflow training-operator does not answer; is it running?",
    ),
    Cause(
        _says(r"failed calling webhook .*kueue"),
        Reason.QUEUE_UNAVAILABLE,
        "Kueue's webhook does not answer, without which no PyTorchJob is made; is Kueue running?",
    ),
    Cause(_says(r"failed calling webhook"), Reason.ADMISSION_UNAVAILABLE, "that webhook does not answer; is it running?"),
    Cause(_has_code(401, 403), Reason.WRITE_FORBIDDEN, "the operator's account lacks that right; look at the chart's roles and namespaces"),
    Cause(_has_code(400, 404, 405, 413, 415, 422), Reason.WRITE_INVALID, "the cluster's version of that kind may be another one"),
    Cause(lambda _: True, Reason.API_SERVER_UNAVAILABLE, "it is sent again"),
)
