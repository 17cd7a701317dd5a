"""Each refusal of the API server in its own words, and the reason that the run gives for it."""

import pytest

from videogen_api.training_run import Reason
from videogen_operator.kinds.training_run.refusals import cause_of
from videogen_operator.plan import Failure

JOB = 'pytorchjobs.kubeflow.org "run-train-1" is forbidden: '
ROWS = [
    ("no CRD", 404, "the server could not find the requested resource", Reason.TRAINING_OPERATOR_NOT_INSTALLED),
    ("too many requests", 429, "too many requests, please try again later", Reason.RATE_LIMITED),
    (
        "a quota that is used up",
        403,
        JOB + "exceeded quota: jobs, requested: count/pytorchjobs.kubeflow.org=1, used: count/pytorchjobs.kubeflow.org=4, limited: 4",
        Reason.QUOTA_EXCEEDED,
    ),
    ("a quota that asks for what is missing", 403, JOB + "failed quota: compute: must specify limits.cpu", Reason.QUOTA_EXCEEDED),
    ("a webhook that says no", 403, 'admission webhook "policy.example.org" denied the request: not on Sundays', Reason.ADMISSION_DENIED),
    (
        "a policy that says no",
        422,
        JOB + "ValidatingAdmissionPolicy 'gpus' with binding 'gpus' denied request: at most 8 GPUs",
        Reason.ADMISSION_DENIED,
    ),
    (
        "training-operator's webhook that is away",
        500,
        'Internal error occurred: failed calling webhook "validator.pytorchjob.training-operator.kubeflow.org": no endpoints available',
        Reason.TRAINING_OPERATOR_UNAVAILABLE,
    ),
    (
        "Kueue's webhook that is away",
        500,
        'Internal error occurred: failed calling webhook "mpytorchjob.kb.io": failed to call webhook: Post'
        ' "https://kueue-webhook-service.kueue-system.svc:443/mutate-kubeflow-org-v1-pytorchjob?timeout=10s": connection refused',
        Reason.QUEUE_UNAVAILABLE,
    ),
    (
        "another webhook that is away",
        500,
        'Internal error occurred: failed calling webhook "mutate.example.org": context deadline exceeded',
        Reason.ADMISSION_UNAVAILABLE,
    ),
    (
        "a right that is missing",
        403,
        JOB + 'User "operator" cannot create resource "pytorchjobs" in API group "kubeflow.org"',
        Reason.WRITE_FORBIDDEN,
    ),
    ("another version of the CRD", 422, 'PyTorchJob.kubeflow.org "run-train-1" is invalid: spec.x: unknown', Reason.WRITE_INVALID),
    ("a server without its database", 500, "etcdserver: request timed out", Reason.API_SERVER_UNAVAILABLE),
    ("a proxy", 503, "upstream connect error", Reason.API_SERVER_UNAVAILABLE),
]


@pytest.mark.parametrize("code, message, reason", [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_why_a_job_was_refused(code: int, message: str, reason: Reason) -> None:
    assert cause_of(Failure("PyTorchJob", "run-train-1", code, message)).reason == reason


def test_an_absent_resource_of_another_kind_is_not_the_training_operators() -> None:
    assert cause_of(Failure("NetworkPolicy", "run-train-1", 404, "not found")).reason == Reason.WRITE_INVALID
