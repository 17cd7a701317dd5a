"""Whoever may write runs names a server of their own for the curves, and with it the Secret of somebody else's credentials."""

import pytest

from videogen_api.training_run import Reason
from videogen_operator.settings import Settings
from videogen_testing.run_simulation import Simulation

# allowed by the administrator, the host in spec.tracking.mlflow.uri, whether the run may begin
HOSTS = [
    ((), "mlflow.tracking", False),
    (("mlflow.tracking",), "mlflow.tracking", True),
    (("mlflow.tracking",), "MLFLOW.Tracking", True),
    (("mlflow.tracking",), "attacker.example.org", False),
    (("mlflow.tracking",), "mlflow.tracking.attacker.example.org", False),
    (("mlflow.tracking",), "169.254.169.254", False),
    (("*.example.org",), "mlflow.example.org", True),
    (("*.example.org",), "example.org.attacker.net", False),
]


@pytest.mark.parametrize("allowed, host, begins", HOSTS)
def test_curves_and_credentials_go_only_where_the_administrator_lets_them(allowed: tuple[str, ...], host: str, begins: bool) -> None:
    sim = Simulation(tracking={"mlflow": {"uri": f"https://{host}:5000", "secretName": "mlflow-credentials"}})
    sim.settings = Settings(tracking_hosts=allowed)
    sim.settle()
    assert bool(sim.jobs()) == begins
    if not begins:
        assert sim.top() == ("Unknown", Reason.TRACKING_NOT_ALLOWED)
        message = next(one.message for one in sim.status().conditions if one.type == "Succeeded")
        assert f"names host {host.lower()}; allowed are {', '.join(allowed) or 'none'}" in message
