"""Experiment tracking: where a run's curves and results go besides its own storage."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from videogen_api.meta import Model, ObjectName, StoragePath

# The keys of the Secret, which MLflow's client reads as environment variables of the same names.
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

TrackingUri = Annotated[str, StringConstraints(pattern=r"^https://[A-Za-z0-9._-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$", max_length=512)]
ExperimentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9 ._/-]*[A-Za-z0-9])?$", min_length=1, max_length=128)]


class Mlflow(Model):
    """An MLflow tracking server. It can neither slow training down nor end it."""

    uri: TrackingUri = Field(
        description="Address of the server without credentials, for example https://mlflow.tracking:5000. Only https, because what is sent"
        " may carry credentials; the host must be one that the administrator allows (the chart's tracking.allowedHosts)."
    )
    experiment: ExperimentName | None = Field(
        default=None, description="Experiment that gets one MLflow run for each phase, made if it is not there; absent: the namespace."
    )
    secret_name: ObjectName | None = Field(
        default=None,
        description="Secret in the namespace with MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD;"
        " other keys are not read. Absent: no credentials.",
    )

    ca_path: StoragePath | None = Field(
        default=None,
        description="PEM file in the storage with the authorities that signed the server's certificate; absent: those of the image.",
    )

    @property
    def host(self) -> str:
        """The server's host name, in lower case."""
        return (urlsplit(self.uri).hostname or "").lower()


class Tracking(Model):
    """Who else gets a run's curves. TensorBoard's event files lie in every phase's folder of the storage, without being asked for."""

    mlflow: Mlflow = Field(description="MLflow.")
