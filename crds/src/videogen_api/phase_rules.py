"""CEL rules over the list of a TrainingRun's phases, each with its message; `training` names the tasks that change weights."""

from __future__ import annotations

from videogen_api.evaluation import DEFAULT_EXTRACTORS
from videogen_api.resources import REPLICAS

Rules = list[tuple[str, str]]
IN_ONE_POD = ["Curate", "Optimize", "BuildTemplates"]
_WITHOUT_PODS = [
    ("self.all(p, (p.task == 'Approve') == has(p.approvals))", "an Approve phase, and no other, has approvals"),
    (
        "self.all(p, p.task != 'Release' || !(has(p.workers) || has(p.resources) || has(p.placement)))",
        "a Release phase has no pods; leave workers, resources and placement out: those of the release stand in release.serving",
    ),
    (
        "self.all(p, p.task != 'Approve' || !(has(p.workers) || has(p.resources) || has(p.placement)"
        " || (has(p.data) && size(p.data) > 0)))",
        "an Approve phase has no pods; leave data, workers, resources and placement out",
    ),
]


def blocks(training: list[str]) -> Rules:
    """What a phase of a task must and may have."""
    return [
        ("self.all(p, (p.task == 'Curate') == has(p.curate))", "a Curate phase, and no other, has a curate block"),
        ("self.all(p, (p.task == 'Release') == has(p.release))", "a Release phase, and no other, has a release block"),
        (
            "self.all(p, p.task == 'Evaluate' || (!has(p.evaluate)"
            " && (p.task in ['Optimize', 'TestScenarios'] || !has(p.gates) || size(p.gates) == 0)))",
            "only an Evaluate phase has evaluate or gates; Optimize and TestScenarios phases have gates, too",
        ),
        (
            f"self.all(p, !(p.task in {[*training, 'Evaluate']}) || (has(p.data) && size(p.data) > 0))",
            "a training or Evaluate phase needs at least one entry in data",
        ),
        (
            f"self.all(p, !(p.task in {training}) || !has(p.data) || p.data.all(d, d.split == 'Train'))",
            "a training phase may not read the HeldOut split",
        ),
        (f"self.all(p, !has(p.train) || p.task in {training})", f"only a training phase, {', '.join(training)}, has a train block"),
        (
            "self.all(p, !(p.task in ['BuildTemplates', 'TestScenarios']) || (has(p.data) && size(p.data) > 0))",
            "a BuildTemplates or TestScenarios phase needs at least one entry in data, whose clips say what real videos are like",
        ),
        ("self.all(p, p.task == 'BuildTemplates' || !has(p.templates))", "only a BuildTemplates phase has a templates block"),
        ("self.all(p, p.task == 'TestScenarios' || !has(p.scenarios))", "only a TestScenarios phase has a scenarios block"),
        (
            "self.all(p, !has(p.gates) || p.gates.all(g, p.task == 'TestScenarios' ? g.metric in ['ScenarioPassRatio', 'GenerationSeconds']"
            " : g.metric != 'ScenarioPassRatio'))",
            "gates of a TestScenarios phase are about ScenarioPassRatio or GenerationSeconds; ScenarioPassRatio is measured there alone",
        ),
        (
            "self.all(p, p.task == 'Evaluate' || !has(p.gates) || p.gates.all(g, !has(g.extractor)"
            f" || (p.task == 'Optimize' && g.extractor in {list(DEFAULT_EXTRACTORS)})))",
            f"an Optimize phase measures by {' and '.join(DEFAULT_EXTRACTORS)}, a TestScenarios phase by none; leave extractor out of"
            " their gates",
        ),
        (
            "self.all(p, p.task == 'Evaluate' || !has(p.gates) || p.gates.all(g, g.metric != 'LanguageScore'))",
            "LanguageScore is measured by an Evaluate phase alone, which can have a CLIP network of yours; leave it out of other gates",
        ),
        ("self.all(p, (p.task == 'Optimize') == has(p.optimize))", "an Optimize phase, and no other, has an optimize block"),
        (
            "self.all(p, p.task != 'Optimize' || (has(p.data) && size(p.data) > 0))",
            "an Optimize phase needs at least one entry in data, to measure what optimisation costs",
        ),
        (
            f"self.all(p, !(p.task in {IN_ONE_POD}) || {REPLICAS} <= 1)",
            "a Curate, Optimize or BuildTemplates phase runs in one pod; leave workers.replicas at 1",
        ),
        (
            f"self.all(p, !has(p.workers) || !has(p.workers.minReplicas) || p.task in {training})",
            f"only a training phase, {', '.join(training)}, goes on with fewer pods; leave workers.minReplicas out of the others",
        ),
        *_WITHOUT_PODS,
    ]


def order(training: list[str]) -> Rules:
    """Which phases may follow which."""
    return [
        ("self.filter(p, p.task == 'Release').size() <= 1", "a run has at most one Release phase"),
        ("!self.exists(p, p.task == 'Release') || self[size(self) - 1].task == 'Release'", "the Release phase must be the last one"),
        (
            "!self.exists(p, p.task == 'Release') || self.exists(p, p.task == 'Evaluate')",
            "a Release phase needs an Evaluate phase before it",
        ),
        (
            f"!self.exists(p, p.task == 'Evaluate') || !self.exists(p, p.task in {training}) || "
            f"self.map(p, p.task == 'Evaluate').lastIndexOf(true) > self.map(p, p.task in {training}).lastIndexOf(true)",
            "the last Evaluate phase must come after the last training phase",
        ),
        (
            f"!self.exists(p, p.task == 'Curate') || !self.exists(p, p.task in {[*training, 'Evaluate']}) || "
            f"self.map(p, p.task == 'Curate').lastIndexOf(true) < self.map(p, p.task in {[*training, 'Evaluate']}).indexOf(true)",
            "Curate phases must come before the first training or Evaluate phase",
        ),
        # They leave the weights as they are, so what an Evaluate phase has measured before holds for their bundle too.
        (
            "!self.exists(p, p.task in ['BuildTemplates', 'TestScenarios'])"
            " || self.map(p, p.task in ['Approve', 'Evaluate', 'BuildTemplates', 'TestScenarios', 'Release']).lastIndexOf(false)"
            " < self.map(p, p.task in ['BuildTemplates', 'TestScenarios']).indexOf(true)",
            "after a BuildTemplates or TestScenarios phase there may only be phases that leave the weights as they are: Approve,"
            " Evaluate, BuildTemplates, TestScenarios, Release",
        ),
        ("self.filter(p, p.task == 'BuildTemplates').size() <= 1", "a run has at most one BuildTemplates phase"),
        ("self.filter(p, p.task == 'Optimize').size() <= 1", "a run has at most one Optimize phase"),
        (
            f"!self.exists(p, p.task == 'Optimize') || self.map(p, p.task == 'Optimize').lastIndexOf(true)"
            f" > self.map(p, p.task in {['Curate', 'Tune', *training]}).lastIndexOf(true)",
            "the Optimize phase must come after all Curate, Tune and training phases",
        ),
        (
            "!self.exists(p, p.task == 'Optimize') || !self.exists(p, p.task == 'Release') || "
            "self.exists(p, p.task == 'Optimize' && has(p.gates) && size(p.gates) > 0) || "
            "self.map(p, p.task == 'Evaluate').lastIndexOf(true) > self.map(p, p.task == 'Optimize').lastIndexOf(true)",
            "what is released must be judged: an Optimize phase before a Release phase needs gates, or an Evaluate phase after it",
        ),
    ]
