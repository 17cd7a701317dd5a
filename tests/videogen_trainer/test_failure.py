"""A failure in another process."""

import pickle

from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure


def test_a_failure_comes_out_of_another_process_as_it_was() -> None:
    found = pickle.loads(pickle.dumps(Failure(Reason.STORAGE_FAILED, "no room")))
    assert (type(found), found.reason, found.message, str(found)) == (Failure, Reason.STORAGE_FAILED, "no room", "no room")
