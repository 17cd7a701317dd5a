"""Which trainer image a run's attempts have, whatever becomes of tags and of the operator's settings."""

from dataclasses import replace

import pytest

from videogen_api.job import ExitCode, Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.training_run import Reason
from videogen_operator.kinds.training_run.images import Ran, exact
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import ended, running

DIGEST = "sha256:" + "d" * 64
FIRST, SECOND = "registry.example.org/videogen/trainer:1.0", "registry.example.org/videogen/trainer:2.0"


def begun(image_id: str) -> Simulation:
    """A run whose first attempt had the image FIRST; of later ones the operator would have SECOND."""
    sim = Simulation()
    sim.settings = replace(sim.settings, trainer_image=FIRST)
    sim.settle()
    sim.settings = replace(sim.settings, trainer_image=SECOND)
    status = running()
    status["containerStatuses"][0]["imageID"] = image_id
    sim.set_pods(status)
    sim.settle()
    return sim


def again(sim: Simulation) -> None:
    sim.set_pods(ended(ExitCode.PREEMPTED, Report(reason=Reason.PREEMPTED).model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    sim.step(400)
    sim.settle()


def image_of(sim: Simulation, job: str) -> str:
    return str(sim.made[job][0]["spec"]["containers"][0]["image"])


def test_a_run_goes_on_with_the_digest_with_which_it_began() -> None:
    told = f"registry.example.org/videogen/trainer@{DIGEST}"
    sim = begun(told)
    images = sim.status().images
    assert images and images.trainer == told
    assert sim.status().phases[0].wire()["imageID"] == told
    again(sim)
    assert image_of(sim, "run-train-2") == told


def test_an_image_without_a_registry_is_recorded_and_goes_on_by_its_name() -> None:
    sim = begun("sha256:" + "e" * 64)
    images = sim.status().images
    assert (images.trainer if images else "", sim.status().phases[0].image_id) == (FIRST, "sha256:" + "e" * 64)
    again(sim)
    assert image_of(sim, "run-train-2") == FIRST


def test_an_image_that_never_ran_binds_nobody() -> None:
    sim = begun("")
    assert sim.status().images is None
    again(sim)
    assert image_of(sim, "run-train-2") == SECOND


def test_whoever_asks_for_a_retry_gets_the_charts_image() -> None:
    told = f"registry.example.org/videogen/trainer@{DIGEST}"
    sim, status = begun(told), ended(ExitCode.INVALID_JOB)
    status["containerStatuses"][0]["imageID"] = told  # the kubelet tells it of a container that has ended, too
    sim.set_pods(status)
    sim.settle()
    assert sim.top() == ("False", Reason.INVALID_JOB)
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert image_of(sim, "run-train-2") == SECOND


ROWS = [
    ("a tag", "host:5000/trainer:1", f"host:5000/trainer@{DIGEST}", f"host:5000/trainer@{DIGEST}"),
    ("no tag", "host:5000/trainer", f"host:5000/trainer@{DIGEST}", f"host:5000/trainer@{DIGEST}"),
    ("a digest", f"trainer@{DIGEST}", f"host.example.org/library/trainer@{DIGEST}", f"trainer@{DIGEST}"),
    ("a short name", "videogen/trainer:1", f"host.example.org/videogen/trainer@{DIGEST}", f"videogen/trainer@{DIGEST}"),
    ("an import", "localhost/trainer:1", f"host.example.org/library/import-2026-11-01@{DIGEST}", "localhost/trainer:1"),
    ("another registry", "mirror.example.org/trainer:1", f"example.org/trainer@{DIGEST}", "mirror.example.org/trainer:1"),
    ("only a digest", "trainer:1", DIGEST, "trainer:1"),
]


@pytest.mark.parametrize("image, image_id, wanted", [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_of_an_image_can_be_pulled_again(image: str, image_id: str, wanted: str) -> None:
    assert exact(Ran(image, image_id)) == wanted
