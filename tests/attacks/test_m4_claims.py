"""Whoever may write runs and releases names a claim that is not theirs, a database's: no pod mounts it."""

from typing import Any

import pytest

from videogen_api.meta import LABEL_STORAGE
from videogen_api.model_release import Reason as ReleaseReason
from videogen_api.training_run import Reason
from videogen_operator.kinds.model_release.eligibility import obstacle
from videogen_operator.kinds.model_release.observed import observe
from videogen_operator.kinds.model_release.states import Event
from videogen_operator.plan import Key
from videogen_testing.releases import NAMESPACE, SERVICE, Objects, a_release
from videogen_testing.releases import a_claim as a_release_claim
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import a_claim

DATABASE = "data-postgres-0"
LABELS: list[dict[str, str]] = [{}, {"app": "postgres"}, {LABEL_STORAGE: "false"}, {LABEL_STORAGE: ""}]


@pytest.mark.parametrize("labels", LABELS)
def test_a_run_mounts_no_claim_whose_owner_has_not_said_so(labels: dict[str, str]) -> None:
    sim = Simulation(storage={"claimName": DATABASE})
    sim.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | a_claim(DATABASE), "models", labels=labels)
    sim.settle()
    assert sim.jobs() == ()
    assert sim.top() == ("Unknown", Reason.CLAIM_NOT_ALLOWED)
    message = next(one.message for one in sim.status().conditions if one.type == "Succeeded")
    assert f"spec.storage.claimName names persistent volume claim {DATABASE}, which has" in message
    assert f"kubectl -n models label pvc {DATABASE} {LABEL_STORAGE}=true" in message
    sim.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | a_claim(DATABASE), "models", labels={LABEL_STORAGE: "true"})
    sim.settle()
    assert len(sim.jobs()) == 1


@pytest.mark.parametrize("labels", LABELS)
def test_a_release_mounts_no_claim_whose_owner_has_not_said_so(labels: dict[str, str]) -> None:
    claim: dict[str, Any] = a_release_claim()
    claim["metadata"]["labels"] = labels
    observed = observe(Objects(a_release(), claim), Key("ModelRelease", NAMESPACE, SERVICE))
    assert observed is not None
    found = obstacle(observed.releases[0], [])
    assert found is not None
    assert (found.event, found.reason) == (Event.WAIT, ReleaseReason.CLAIM_NOT_ALLOWED)
    assert "label pvc models videogen.pib.gov.in/storage=true" in found.message
