"""CEL rules over a TrainingRun's phases: over each, and over the tasks of all. `training` names the tasks that change weights."""

from __future__ import annotations

from typing import Any

from videogen_api import tuning
from videogen_api.cel import Rules, merged
from videogen_api.evaluation import DEFAULT_EXTRACTORS

IN_ONE_POD = ["Curate", "Optimize", "BuildTemplates"]
_KEEPS_WEIGHTS = ["Approve", "Evaluate", "BuildTemplates", "TestScenarios", "Release"]
_HAS_PODS = "(has(self.workers) || has(self.resources) || has(self.placement))"


def of_a_phase(training: list[str]) -> dict[str, Any]:
    """What a phase of a task must and may have."""
    rules = [*_blocks(training), *_gates(), *_data(training), *_pods(training), *tuning.OF_A_PHASE]
    filled = "has(self.data) && size(self.data) > 0"
    return merged(rules, task="self.task", has_data=filled, gates="has(self.gates) ? self.gates : []")


def _blocks(training: list[str]) -> Rules:
    return [
        ("(task == 'Curate') == has(self.curate)", "a Curate phase, and no other, has a curate block"),
        ("(task == 'Release') == has(self.release)", "a Release phase, and no other, has a release block"),
        ("(task == 'Optimize') == has(self.optimize)", "an Optimize phase, and no other, has an optimize block"),
        ("(task == 'Approve') == has(self.approvals)", "an Approve phase, and no other, has approvals"),
        (f"task in {training} || !has(self.train)", f"only a training phase, {', '.join(training)}, has a train block"),
        ("task == 'BuildTemplates' || !has(self.templates)", "only a BuildTemplates phase has a templates block"),
        ("task == 'TestScenarios' || !has(self.scenarios)", "only a TestScenarios phase has a scenarios block"),
    ]


def _gates() -> Rules:
    return [
        (
            "task == 'Evaluate' || (!has(self.evaluate) && (task in ['Optimize', 'TestScenarios'] || size(gates) == 0))",
            "only an Evaluate phase has evaluate or gates; Optimize and TestScenarios phases have gates, too",
        ),
        (
            "gates.all(g, task == 'TestScenarios' ? g.metric in ['ScenarioPassRatio', 'GenerationSeconds']"
            " : g.metric != 'ScenarioPassRatio')",
            "gates of a TestScenarios phase are about ScenarioPassRatio or GenerationSeconds; ScenarioPassRatio is measured there alone",
        ),
        (
            f"task == 'Evaluate' || gates.all(g, !has(g.extractor) || (task == 'Optimize' && g.extractor in {list(DEFAULT_EXTRACTORS)}))",
            f"an Optimize phase measures by {' and '.join(DEFAULT_EXTRACTORS)}, a TestScenarios phase by none; leave extractor out of"
            " their gates",
        ),
        (
            "task == 'Evaluate' || gates.all(g, g.metric != 'LanguageScore')",
            "LanguageScore is measured by an Evaluate phase alone, which can have a CLIP network of yours; leave it out of other gates",
        ),
    ]


def _data(training: list[str]) -> Rules:
    return [
        (
            f"has_data || !(task in {[*training, 'Evaluate']})",
            "a training or Evaluate phase needs at least one entry in data",
        ),
        (
            f"!has_data || !(task in {training}) || self.data.all(d, !has(d.split) || d.split == 'Train')",
            "a training phase may not read the HeldOut split",
        ),
        (
            "has_data || !(task in ['BuildTemplates', 'TestScenarios'])",
            "a BuildTemplates or TestScenarios phase needs at least one entry in data, whose clips say what real videos are like",
        ),
        ("has_data || task != 'Optimize'", "an Optimize phase needs at least one entry in data, to measure what optimisation costs"),
    ]


def _pods(training: list[str]) -> Rules:
    return [
        (
            f"!(task in {IN_ONE_POD}) || !has(self.workers) || self.workers.replicas <= 1",
            "a Curate, Optimize or BuildTemplates phase runs in one pod; leave workers.replicas at 1",
        ),
        (
            f"task in {training} || !has(self.workers) || !has(self.workers.minReplicas)",
            f"only a training phase, {', '.join(training)}, goes on with fewer pods; leave workers.minReplicas out of the others",
        ),
        (
            f"task != 'Release' || !{_HAS_PODS}",
            "a Release phase has no pods; leave workers, resources and placement out: those of the release stand in release.serving",
        ),
        (
            f"task != 'Approve' || !({_HAS_PODS} || has_data)",
            "an Approve phase has no pods; leave data, workers, resources and placement out",
        ),
    ]


def order(training: list[str]) -> dict[str, Any]:
    """Which phases may follow which."""
    return merged([*_release(training), *_curation(training), *_emergencies(), *_optimization(training), *tuning.ORDER], tasks=_TASKS)


_TASKS = "self.map(p, p.task)"


def _release(training: list[str]) -> Rules:
    return [
        ("tasks.filter(t, t == 'Release').size() <= 1", "a run has at most one Release phase"),
        ("!('Release' in tasks) || tasks[size(tasks) - 1] == 'Release'", "the Release phase must be the last one"),
        ("!('Release' in tasks) || 'Evaluate' in tasks", "a Release phase needs an Evaluate phase before it"),
        (
            f"!('Evaluate' in tasks) || tasks.lastIndexOf('Evaluate') > tasks.map(t, t in {training}).lastIndexOf(true)",
            "the last Evaluate phase must come after the last training phase",
        ),
    ]


def _curation(training: list[str]) -> Rules:
    after = [*training, "Evaluate"]
    return [
        (
            f"!('Curate' in tasks) || !tasks.exists(t, t in {after})"
            f" || tasks.lastIndexOf('Curate') < tasks.map(t, t in {after}).indexOf(true)",
            "Curate phases must come before the first training or Evaluate phase",
        ),
    ]


def _emergencies() -> Rules:
    tasks = ["BuildTemplates", "TestScenarios"]
    return [
        # They leave the weights as they are, so what an Evaluate phase has measured before holds for their bundle too.
        (
            f"!tasks.exists(t, t in {tasks}) || tasks.map(t, t in {_KEEPS_WEIGHTS}).lastIndexOf(false)"
            f" < tasks.map(t, t in {tasks}).indexOf(true)",
            "after a BuildTemplates or TestScenarios phase there may only be phases that leave the weights as they are: Approve,"
            " Evaluate, BuildTemplates, TestScenarios, Release",
        ),
        ("tasks.filter(t, t == 'BuildTemplates').size() <= 1", "a run has at most one BuildTemplates phase"),
    ]


def _optimization(training: list[str]) -> Rules:
    return [
        ("tasks.filter(t, t == 'Optimize').size() <= 1", "a run has at most one Optimize phase"),
        (
            f"!('Optimize' in tasks)"
            f" || tasks.lastIndexOf('Optimize') > tasks.map(t, t in {['Curate', 'Tune', *training]}).lastIndexOf(true)",
            "the Optimize phase must come after all Curate, Tune and training phases",
        ),
        (
            "!('Optimize' in tasks) || !('Release' in tasks) || tasks.lastIndexOf('Evaluate') > tasks.lastIndexOf('Optimize')"
            " || self.exists(p, p.task == 'Optimize' && has(p.gates) && size(p.gates) > 0)",
            "what is released must be judged: an Optimize phase before a Release phase needs gates, or an Evaluate phase after it",
        ),
    ]
