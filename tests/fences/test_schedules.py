"""The schedules at full size say what the requirements' rows say; the ids are those of the rows."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_api.emergency import Scenarios
from videogen_api.evaluation import ExtractorArchitecture, Gate, Metric, Normalization, Operator
from videogen_api.fine_tune_cycle import Cadence, FineTuneCycleSpec
from videogen_api.job import CONTRACT, ArtifactReference, Job, PinnedData
from videogen_api.optimization import ExportFormat, Quantization
from videogen_api.recipe import OptimizerName, Precision, Recipe, ScheduleType
from videogen_api.resources import gpus as gpus_of
from videogen_api.training_run import TRAINING, WITHOUT_PODS, Phase, Split, Task, TrainingRunSpec
from videogen_trainer.emergency.catalogue import TYPES
from videogen_trainer.tasks import check

EXAMPLES = Path(__file__).parents[2] / "examples"
DAY = 86400
NETWORK_OF = {
    Metric.FVD: ExtractorArchitecture.I3D,
    Metric.INCEPTION_SCORE: ExtractorArchitecture.C3D,
    Metric.CLIP_SCORE: ExtractorArchitecture.CLIP,
    Metric.TEMPORAL_COHERENCE: ExtractorArchitecture.CLIP,
}


def runs() -> dict[str, TrainingRunSpec]:
    """All runs of the examples by file and name."""
    found = {}
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "TrainingRun":
                spec = TrainingRunSpec.model_validate(document["spec"])
                found[f"{path.relative_to(EXAMPLES)} {document['metadata']['name']}"] = spec
    return found


RUNS = runs()
VIDEOFUSION = RUNS["schedule/videofusion.yaml videofusion-1-0"]
ALIGN_YOUR_LATENTS = RUNS["schedule/align-your-latents.yaml align-your-latents-1-0"]
TEXT2VIDEO_ZERO = RUNS["schedule/text2video-zero.yaml text2video-zero-1-0"]
EMERGENCY = RUNS["emergency/training-run.yaml emergency-1-0"]
ON_GPUS = {name: spec for name, spec in RUNS.items() if any(gpus_of(phase.resources) for phase in spec.phases)}


def phase(spec: TrainingRunSpec, name: str) -> Phase:
    return next(phase for phase in spec.phases if phase.name == name)


def row(one: Phase) -> tuple[Task, dict[str, int | None], int, int | None]:
    """A phase as a row of the requirements has it: task, samples by dataset, GPUs, days."""
    samples = {f"{data.dataset} {data.split}": data.samples for data in one.data}
    days = one.deadline_seconds // DAY if one.deadline_seconds else None
    return one.task, samples, one.asked_workers.replicas * gpus_of(one.resources), days


def told(recipe: Recipe) -> dict[str, Any]:
    """The numbers of a recipe that the rows R-*-P have."""
    return {
        "batch": recipe.global_batch_size,
        "accumulation": recipe.gradient_accumulation_steps,
        "steps": recipe.steps,
        "precision": recipe.precision,
        "optimizer": recipe.optimizer.name,
        "rate": recipe.optimizer.learning_rate,
        "decay": recipe.optimizer.weight_decay,
        "clipping": recipe.optimizer.gradient_clip_norm,
        "schedule": recipe.schedule.type,
        "warm-up": recipe.schedule.warmup_steps,
    }


def gate(one: Phase, metric: Metric) -> Gate:
    return next(gate for gate in one.gates if gate.metric is metric)


def test_videofusion_trains_with_the_numbers_of_r_vf_p() -> None:
    assert told(VIDEOFUSION.recipe) == {
        "batch": 32,
        "accumulation": 4,
        "steps": 100_000,
        "precision": Precision.FP16,
        "optimizer": OptimizerName.ADAMW,
        "rate": "1e-5",
        "decay": "0.01",
        "clipping": "1.0",
        "schedule": ScheduleType.COSINE,
        "warm-up": 5000,
    }
    fusion = VIDEOFUSION.recipe.fusion
    assert (fusion.base_noise_share, fusion.residual_noise_share) == ("0.70", "0.30")


def test_align_your_latents_trains_with_the_numbers_of_r_ayl_p() -> None:
    numbers = told(ALIGN_YOUR_LATENTS.recipe)
    wanted = {
        "batch": 16,
        "steps": 80_000,
        "precision": Precision.BF16,
        "optimizer": OptimizerName.ADAMW_8BIT,
        "rate": "5e-6",
        "clipping": "1.0",
        "schedule": ScheduleType.LINEAR,
        "warm-up": 2000,
    }
    assert {name: numbers[name] for name in wanted} == wanted
    latents = ALIGN_YOUR_LATENTS.recipe.align_your_latents
    assert latents
    assert latents.consistency_weight == "0.5"


def test_text2video_zero_is_adapted_with_the_numbers_of_r_t2v_p() -> None:
    numbers = told(TEXT2VIDEO_ZERO.recipe)
    wanted = {"batch": 8, "steps": 20_000, "optimizer": OptimizerName.ADAMW, "rate": "2e-5"}
    assert {name: numbers[name] for name in wanted} == wanted
    optimize = phase(TEXT2VIDEO_ZERO, "optimization").optimize
    assert optimize
    assert optimize.formats == [ExportFormat.ONNX, ExportFormat.TENSORRT]


def test_the_phases_of_videofusion_are_the_rows_r_vf_1_to_r_vf_5() -> None:
    assert row(phase(VIDEOFUSION, "initial-training")) == (Task.TRAIN, {"general-pairs Train": 100_000, "pib Train": 10_000}, 8, 28)
    assert row(phase(VIDEOFUSION, "validation")) == (Task.EVALUATE, {"pib HeldOut": 1000}, 2, 7)
    task, samples, gpus, days = row(phase(VIDEOFUSION, "hyperparameter-tuning"))
    assert (task, samples["general-pairs Train"], gpus, days) == (Task.TUNE, 5000, 4, 7)
    prepared = phase(VIDEOFUSION, "deployment-preparation")
    assert (prepared.task, prepared.deadline_seconds) == (Task.OPTIMIZE, 7 * DAY)
    assert prepared.optimize
    assert prepared.optimize.quantization is Quantization.INT8_WEIGHTS
    assert gpus_of(phase(VIDEOFUSION, "acceptance").resources) == 2
    assert phase(VIDEOFUSION, "production-deployment").task is Task.RELEASE


def test_the_phases_of_align_your_latents_are_the_rows_r_ayl_1_to_r_ayl_5() -> None:
    assert [row(one) for one in ALIGN_YOUR_LATENTS.phases[:4]] == [
        (Task.TRAIN, {"high-resolution Train": 50_000}, 8, 28),
        (Task.ALIGN_CROSS_MODAL, {"general-pairs Train": 30_000}, 4, 14),
        (Task.FINE_TUNE, {"pib Train": 5000}, 4, 7),
        (Task.EVALUATE, {"pib HeldOut": 1000}, 2, 7),
    ]
    evaluation = phase(ALIGN_YOUR_LATENTS, "evaluation")
    assert evaluation.evaluate
    assert evaluation.evaluate.samples == 1000
    assert {one.metric for one in evaluation.gates} == {Metric.TEMPORAL_COHERENCE, Metric.CLIP_SCORE}
    assert ALIGN_YOUR_LATENTS.phases[-1].task is Task.RELEASE


def test_the_phases_of_text2video_zero_are_the_rows_r_t2v_1_to_r_t2v_5() -> None:
    assert row(phase(TEXT2VIDEO_ZERO, "adaptation")) == (Task.ADAPT, {"emergency Train": 10_000}, 4, 14)
    optimization = phase(TEXT2VIDEO_ZERO, "optimization")
    assert optimization.optimize
    assert (optimization.optimize.samples, optimization.deadline_seconds) == (1000, 7 * DAY)
    faster = gate(optimization, Metric.GENERATION_SECONDS)
    assert (faster.operator, faster.threshold, faster.minimum_samples) == (Operator.LESS_THAN, "60", 64), "as many as are timed"
    assert row(phase(TEXT2VIDEO_ZERO, "template-creation")) == (Task.BUILD_TEMPLATES, {"emergency HeldOut": None}, 1, 7)
    assert row(phase(TEXT2VIDEO_ZERO, "testing")) == (Task.TEST_SCENARIOS, {"emergency HeldOut": None}, 2, 7)
    scenarios = phase(TEXT2VIDEO_ZERO, "testing").scenarios
    assert scenarios
    assert (scenarios.table, scenarios.samples) == (Scenarios().table, None), "the trainer's own hundred"
    assert TEXT2VIDEO_ZERO.phases[-1].task is Task.RELEASE


@pytest.mark.parametrize("spec", [TEXT2VIDEO_ZERO, EMERGENCY], ids=["schedule", "emergency"])
def test_the_emergency_runs_make_ten_types_of_five_variations_and_two_pods(spec: TrainingRunSpec) -> None:
    templates = next(phase.templates for phase in spec.phases if phase.task is Task.BUILD_TEMPLATES)
    assert templates
    assert len(templates.types or TYPES) * templates.variations == 50
    assert templates.least == 5, "all of them"
    release = spec.phases[-1].release
    assert release
    serving = release.serving
    assert serving.replicas >= 2, "one may be lost"
    place = serving.placement
    assert place and place.tolerations and place.topology_spread
    assert {toleration.value for toleration in place.tolerations} == set((place.node_selector or {}).values()), "dedicated GPUs"
    assert place.topology_spread[0].topology_key == "kubernetes.io/hostname", "on different nodes"
    given = yaml.safe_load((EXAMPLES / "emergency/priority-class.yaml").read_text())
    assert place.priority_class_name == given["metadata"]["name"]


def test_what_is_released_meets_the_targets_of_r_met() -> None:
    acceptance = phase(VIDEOFUSION, "acceptance")
    assert {one.metric: (one.operator, one.threshold) for one in acceptance.gates} == {
        Metric.FVD: (Operator.LESS_THAN, "200"),
        Metric.INCEPTION_SCORE: (Operator.GREATER_THAN, "70"),
        Metric.TEMPORAL_COHERENCE: (Operator.GREATER_THAN, "0.9"),
        Metric.CLIP_SCORE: (Operator.GREATER_THAN, "0.8"),
        Metric.GENERATION_SECONDS: (Operator.LESS_THAN, "30"),
    }
    assert VIDEOFUSION.phases.index(acceptance) > VIDEOFUSION.phases.index(phase(VIDEOFUSION, "deployment-preparation"))
    assert gate(phase(ALIGN_YOUR_LATENTS, "evaluation"), Metric.CLIP_SCORE).threshold == "0.8"


@pytest.mark.parametrize("name", ON_GPUS)
def test_gates_at_full_size_are_judged_by_networks_of_the_literature(name: str) -> None:
    """The trainer's own networks know synthetic clips alone."""
    for one in ON_GPUS[name].phases:
        mounted = {extractor.name: extractor.architecture for extractor in one.evaluate.extractors} if one.evaluate else {}
        for found in one.gates:
            if found.metric in NETWORK_OF:
                assert mounted.get(found.extractor or "") is NETWORK_OF[found.metric], f"{one.name}: {found.metric}"
            if found.metric is Metric.CLIP_SCORE:
                assert found.normalization is Normalization.CLIP_SCORE_25, "0.8 is beyond what a cosine reaches"
        if one.tune:
            assert one.tune.extractor, one.name


@pytest.mark.parametrize("name", ON_GPUS)
def test_what_chooses_lambda_does_not_judge_what_is_released(name: str) -> None:
    choosing = held_out(ON_GPUS[name], Task.TUNE)
    assert not choosing & held_out(ON_GPUS[name], Task.EVALUATE)


def held_out(spec: TrainingRunSpec, task: Task) -> set[str]:
    """Datasets whose held-out clips a task looks at."""
    return {data.dataset for one in spec.phases if one.task is task for data in one.data if data.split is Split.HELD_OUT}


def test_the_choice_and_the_judgement_of_lambda_are_both_in_the_schedule() -> None:
    assert held_out(VIDEOFUSION, Task.TUNE)
    assert held_out(VIDEOFUSION, Task.EVALUATE)


@pytest.mark.parametrize("name", RUNS)
def test_the_trainer_takes_every_phase_of_an_example(name: str) -> None:
    spec, bundle = RUNS[name], ArtifactReference(path="bundles/a", digest="sha256:" + "0" * 64)
    made = bundle if spec.init_from else None
    for one in spec.phases:
        if one.task in WITHOUT_PODS:
            continue
        check(
            Job(
                contract=CONTRACT,
                run="example",
                run_uid="0",
                namespace="default",
                phase=one.name,
                attempt=1,
                task=one.task,
                model=spec.model,
                recipe=one.recipe_of(spec.recipe),
                work_path="runs/example",
                data=[PinnedData(reference=data) for data in one.data],
                curate=one.curate,
                init_from=made,
                artifact=made,
                tune=one.tune,
                optimize=one.optimize,
                workers=one.asked_workers.replicas,
                processes_per_worker=one.asked_workers.processes or max(1, gpus_of(one.resources)),
            )
        )
        made = bundle if one.task in TRAINING else made


def cycles() -> dict[str, FineTuneCycleSpec]:
    """The calendar of examples/schedule by name."""
    files = [path for path in sorted((EXAMPLES / "schedule").glob("*.yaml")) if "kind: FineTuneCycle" in path.read_text()]
    found = [document for path in files for document in yaml.safe_load_all(path.read_text())]
    return {one["metadata"]["name"]: FineTuneCycleSpec.model_validate(one["spec"]) for one in found}


CYCLES = cycles()
QUARTERS = {
    "base-q1": (1, {"pib-q1": 10_000}, {Metric.FVD, Metric.INCEPTION_SCORE}),
    "base-q2": (4, {"pib-languages": 5000}, {Metric.LANGUAGE_SCORE, Metric.TEMPORAL_COHERENCE}),
    "base-q3": (7, {"pib-high-quality": 3000, "pib-problematic": 1000}, {Metric.ARTEFACT_RATE, Metric.FVD}),
    "base-q4": (10, {"pib-diverse": 15_000}, set(NETWORK_OF) | {Metric.ARTEFACT_RATE, Metric.GENERATION_SECONDS}),
}
TEAMS = ["data-science", "ml-engineering", "qa", "devops"]


def template(name: str) -> dict[str, dict[str, Any]]:
    """Phases of a cycle's runs by name."""
    return {phase["name"]: phase for phase in CYCLES[name].run_template.spec["phases"]}


@pytest.mark.parametrize("name", QUARTERS)
def test_the_four_quarters_are_the_rows_r_q1_to_r_q4(name: str) -> None:
    month, wanted, metrics = QUARTERS[name]
    spec = CYCLES[name]
    assert (spec.cadence, spec.schedule) == (Cadence.QUARTERLY, f"0 3 1 {month} *")
    assert {one.dataset: one.target or one.minimum for one in spec.collect} == wanted
    assert {gate["metric"] for gate in template(name)["evaluate"]["gates"]} == metrics
    assert any("maximumRatioToStable" in check for check in template(name)["release"]["release"]["rollout"]["checks"]), "A/B"


@pytest.mark.parametrize("name", [name for name, spec in CYCLES.items() if spec.cadence is Cadence.MONTHLY])
def test_each_month_has_the_four_weeks_of_r_mon(name: str) -> None:
    assert [(stage.owner, stage.start_day, stage.days) for stage in CYCLES[name].stages] == [
        (team, 7 * n, 7) for n, team in enumerate(TEAMS)
    ]


def test_the_cycles_collect_what_r_dat_4_says() -> None:
    least = {name: {(one.minimum, one.target) for one in spec.collect} for name, spec in CYCLES.items()}
    assert all(least[name] == {(1000, 2000)} for name, spec in CYCLES.items() if spec.cadence is Cadence.MONTHLY)
    assert {minimum for name in ("base-q1", "base-q2", "base-q4") for minimum, _ in least[name]} == {5000}
    assert least["base-annual"] == {(50_000, None)}


def test_of_each_cadence_the_model_in_production_has_a_cycle_and_the_rarer_one_goes_first() -> None:
    ranks = {spec.cadence: spec.precedence for name, spec in CYCLES.items() if name.startswith("base-")}
    assert [cadence for cadence, _ in sorted(ranks.items(), key=lambda one: one[1])] == list(Cadence)


def test_each_cycle_makes_versions_of_a_model_that_a_schedule_begins_and_from_its_service() -> None:
    begun = {
        (run.model.type, run.model.specialization): run.phases[-1].release for run in (VIDEOFUSION, ALIGN_YOUR_LATENTS, TEXT2VIDEO_ZERO)
    }
    services = {line: release.service for line, release in begun.items() if release}
    assert len(set(services.values())) == 3, "each model has its own"
    for name, spec in CYCLES.items():
        service = services[spec.model.type, spec.model.specialization]
        assert spec.start_from and spec.start_from.service == service, name
        assert template(name)["release"]["release"]["service"] == service, name


def test_the_resources_are_those_of_r_res() -> None:
    claim = next(
        one for one in yaml.safe_load_all((EXAMPLES / "schedule/claim.yaml").read_text()) if one["kind"] == "PersistentVolumeClaim"
    )
    assert claim["spec"]["resources"]["requests"]["storage"] == "7T", "5 TB and 2 TB"
    trained = phase(VIDEOFUSION, "initial-training").resources
    assert trained and trained.requests
    assert (gpus_of(trained), trained.requests["cpu"]) == (8, "64")
    for name in CYCLES.keys() - {"base-annual"}:
        tuned = [one for one in template(name).values() if one["task"] in TRAINING]
        assert all((one["resources"]["limits"]["nvidia.com/gpu"], one["resources"]["requests"]["cpu"]) == (4, 32) for one in tuned), name
        assert all(one["deadlineSeconds"] <= 14 * DAY for one in tuned), "2 weeks a cycle"
    for run, gigabytes in ((VIDEOFUSION, 500), (ALIGN_YOUR_LATENTS, 500), (TEXT2VIDEO_ZERO, 250)):
        release = run.phases[-1].release
        assert release and release.serving.resources and release.serving.resources.requests
        asked = release.serving.resources.requests
        assert (release.serving.replicas, gpus_of(release.serving.resources), asked["cpu"], asked["ephemeral-storage"]) == (
            2,
            1,
            "8",
            f"{gigabytes}G",
        )
