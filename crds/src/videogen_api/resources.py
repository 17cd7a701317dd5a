"""What one phase's pods ask for, how many they are, and the CEL rules of going on with fewer."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from videogen_api.meta import Model, Quantity, k8s

ALL_WORKERS_SECONDS = 600  # as long as a release's pods may take to start; node pools have grown by then, or will not
_RULES = [
    ("!has(self.minWorkers) || self.minWorkers <= self.workers", "minWorkers may not be greater than workers"),
    (
        "!has(self.allWorkersDeadlineSeconds) || has(self.minWorkers)",
        "allWorkersDeadlineSeconds says when a phase goes on with fewer workers; set minWorkers beside it, or leave it out",
    ),
]


class Resources(Model):
    """What one phase's pods ask for."""

    model_config = ConfigDict(json_schema_extra=k8s(rules=_RULES))

    workers: int = Field(default=1, ge=1, le=128, description="Pods.")
    gpus_per_worker: int = Field(default=0, ge=0, le=16, description="GPUs of each pod; 0 trains on CPUs.")
    processes_per_worker: int | None = Field(
        default=None, ge=1, le=64, description="Processes of each pod, not of a Release phase; absent: one for each GPU, or one."
    )
    cpu_per_worker: Quantity = Field(default="1", description="CPU request of each pod.")
    memory_per_worker: Quantity = Field(default="4Gi", description="Memory request and limit of each pod.")
    min_workers: int | None = Field(
        default=None,
        ge=1,
        le=128,
        description="Training phases: the fewest pods to train with while the cluster has no room for all workers; absent: as many as"
        " workers. Each pod keeps its micro-batch and takes more of them one after the other, so batch and memory stay, and only counts"
        " that divide workers * recipe.gradientAccumulationSteps are used, of which it must be one: 4 workers may become 2 or 1, not 3.",
    )
    all_workers_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description="With minWorkers: an attempt waits this long for room for its pods before the next one begins with fewer; absent:"
        f" {ALL_WORKERS_SECONDS}. Every attempt after another end tries all workers again. A phase's deadlineSeconds must be longer, or"
        " it ends first.",
    )


# CEL over a whole TrainingRun, message, field. The guards are for values that the schema refuses as well, in words of its own.
RUN_RULES: tuple[tuple[str, str, str], ...] = (
    (
        "self.spec.phases.all(p, !has(p.resources.minWorkers) || p.resources.minWorkers < 1"
        " || (p.resources.workers * self.spec.recipe.gradientAccumulationSteps) % p.resources.minWorkers == 0)",
        "resources.minWorkers must divide resources.workers * recipe.gradientAccumulationSteps, because fewer workers take the same"
        " micro-batches in more steps of accumulation",
        ".spec.phases",
    ),
)
