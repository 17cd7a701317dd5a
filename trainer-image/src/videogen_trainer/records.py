"""Records of computed phases in the storage: written when a phase is done, found when a later run would compute the same.

The operator seals a record, so that nobody who may write the storage can forge one, and it alone judges the seal. What goes wrong here
costs the record, and nothing else: the phase is done, or it is computed again.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from videogen_api.bundle import ALLOWED_SUFFIXES, MANIFEST, Manifest, canonical_json, manifest_digest
from videogen_api.job import ENV_RECORDS_URL, ENV_REPLICA_INDEX, Job, Report
from videogen_api.records import RECORD_BYTES, Record, inputs_of, key_of, record_path
from videogen_api.training_run import Reason
from videogen_models.sealed import CorruptError, verify, write_durably
from videogen_trainer.dataset import open_dataset, unchecked
from videogen_trainer.failure import Failure
from videogen_trainer.progress import Endpoint, endpoint_of, post
from videogen_trainer.report import to_bytes

TRIES, PAUSE_SECONDS = 3, 2.0
_FILE_BYTES = 256 * 1024  # of a record's file, most of which are the inputs
_LOG = logging.getLogger(__name__)


def keep(job: Job, storage: Path, report: Report, environment: Mapping[str, str], sleep: Callable[[float], None] = time.sleep) -> None:
    """In the first pod of an attempt that is done: have its report sealed by the operator, and write the record."""
    endpoint = endpoint_of(environment, ENV_RECORDS_URL)
    inputs = inputs_of(job, report.datasets) if job.attempt and report.reason is Reason.COMPLETED else None
    if endpoint is None or inputs is None or environment.get(ENV_REPLICA_INDEX, "0") != "0":
        return
    try:
        record = _sealed(endpoint, report, sleep)
        if (found := Record.model_validate(record).key) != key_of(inputs):
            _LOG.warning("the operator's record has key %s, expected %s; it is not kept", found, key_of(inputs))
            return
        write_durably(storage / record_path(found), canonical_json({"inputs": inputs, "record": record}))
        _LOG.info("%s is what this phase has computed, for runs that would compute the same", record_path(found))
    except (OSError, ValueError, KeyError, TypeError) as error:
        _LOG.warning("there will be no record of this phase, so that it is not reused later: %s", error)


def find(job: Job, storage: Path) -> dict[str, Any] | None:
    """The record of what the job would compute, with the bundle that it names there and undamaged; None: it must be computed.

    Its seal is unjudged. The digests of datasets that the job does not know are those that their versions have now; their clips are
    verified by whoever uses them next.
    """
    try:
        used = [open_dataset(storage, part.reference, part.digest, check=unchecked).resolved for part in job.data]
        inputs = inputs_of(job, used)
        if inputs is None or not (path := storage / record_path(key_of(inputs))).is_file():
            return None
        record: dict[str, Any] = json.loads(_read(path))["record"]
        artifact = Report.model_validate(Record.model_validate(record).report).artifact
        if artifact:
            _verify(storage / artifact.path, artifact.digest)
        size = len(canonical_json(record))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, Failure) as error:  # ValueError: CorruptError and JSON's are such
        _LOG.warning("phase %s is computed, although there may be a record of it: %s", job.phase, error)
        return None
    if size > RECORD_BYTES:
        _LOG.warning("%s has a record of %d bytes, larger than any of the operator's; the phase is computed", path, size)
        return None
    return record


def _verify(folder: Path, digest: str) -> None:
    """As `videogen_models.bundle.verify_bundle`, without torch. Raises CorruptError, OSError."""
    data = (folder / MANIFEST).read_bytes()
    if (found := manifest_digest(data)) != digest:
        raise CorruptError(f"{folder} has digest {found}, expected {digest}")
    verify(folder, Manifest.model_validate_json(data).files, ALLOWED_SUFFIXES)


def _sealed(endpoint: Endpoint, report: Report, sleep: Callable[[float], None]) -> dict[str, Any]:
    """The operator's answer; one that is not there or busy is asked again."""
    body = b'{"report":' + to_bytes(report) + b"}"
    for left in reversed(range(TRIES)):
        try:
            record = json.loads(post(endpoint, body))["record"]
        except urllib.error.HTTPError as error:
            said = error.read(1000).decode(errors="replace")
            if not left or error.code not in {429, 503}:
                raise OSError(f"{endpoint.url} answers {error.code}: {said}") from error
        except OSError:
            if not left:
                raise
        else:
            assert isinstance(record, dict)
            return record
        sleep(PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_FILE_BYTES + 1)
    if len(data) > _FILE_BYTES:
        raise ValueError(f"{path} has more than {_FILE_BYTES} bytes")
    return data
