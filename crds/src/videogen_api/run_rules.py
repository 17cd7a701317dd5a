"""CEL rules over a whole TrainingRun: each with its message and the field that it is about."""

from __future__ import annotations

from videogen_api import noise_shares, resources, tuning
from videogen_api.curation import LONGEST_CLIP
from videogen_api.phase_training import PHASE_RULES
from videogen_api.resources import PROCESSES, REPLICAS
from videogen_api.training_run import TRAINING

_TRAINING = [task.value for task in TRAINING]

_LATENT = "(has(self.spec.recipe.videoFusion) && self.spec.recipe.videoFusion.space == 'Latent')"
# A recipe has the block of its model's family, or none.
_FAMILY_RULES = (
    (
        "self.spec.model.family == 'VideoFusion' || !has(self.spec.recipe.videoFusion)",
        "recipe.videoFusion is for models of family VideoFusion; leave it out",
        ".spec.recipe.videoFusion",
    ),
    (
        "self.spec.model.family == 'AlignYourLatents' || !has(self.spec.recipe.alignYourLatents)",
        "recipe.alignYourLatents is for models of family AlignYourLatents; leave it out",
        ".spec.recipe.alignYourLatents",
    ),
    (
        "self.spec.model.family == 'Text2VideoZero' || !has(self.spec.recipe.text2VideoZero)",
        "recipe.text2VideoZero is for models of family Text2VideoZero; leave it out",
        ".spec.recipe.text2VideoZero",
    ),
    (
        f"!has(self.spec.recipe.backbone) || !has(self.spec.initFrom) && (self.spec.model.family != 'VideoFusion' || {_LATENT})",
        "recipe.backbone is for models of family AlignYourLatents and Text2VideoZero, and VideoFusion in videoFusion.space Latent,"
        " and not beside initFrom, which has an image model",
        ".spec.recipe.backbone",
    ),
    (
        f"!{_LATENT} || has(self.spec.recipe.backbone) || has(self.spec.initFrom)",
        "videoFusion.space Latent needs an autoencoder: that of recipe.backbone, or of a run or release in initFrom",
        ".spec.recipe.videoFusion.space",
    ),
    (
        "!self.spec.recipe.cacheLatents || self.spec.model.family == 'AlignYourLatents'"
        " || (self.spec.model.family == 'Text2VideoZero' && (has(self.spec.recipe.backbone) || has(self.spec.initFrom)))",
        "recipe.cacheLatents needs encoders that do not learn: those of family AlignYourLatents, or of Text2VideoZero with backbone or"
        " initFrom",
        ".spec.recipe.cacheLatents",
    ),
    (
        "self.spec.model.family != 'VideoFusion' || !has(self.spec.recipe.loss.predictionType)",
        "recipe.loss.predictionType is for models of family AlignYourLatents and Text2VideoZero; leave it out",
        ".spec.recipe.loss.predictionType",
    ),
)

_SHARDING_RULES = (
    (
        "!has(self.spec.recipe.sharding) || self.spec.recipe.optimizer.name != 'AdamW8bit'",
        "recipe.sharding Full is not for optimizer AdamW8bit, whose blocks of 256 weights would not end where the shards do; take AdamW",
        ".spec.recipe.sharding",
    ),
    (
        "!has(self.spec.recipe.sharding) || !self.spec.recipe.compile",
        "recipe.sharding Full and recipe.compile are not used together; leave one of them out",
        ".spec.recipe.sharding",
    ),
    (
        "!has(self.spec.recipe.sharding) || self.spec.recipe.precision != 'FP16'",
        "recipe.sharding Full is not for precision FP16; take BF16 or FP32",
        ".spec.recipe.sharding",
    ),
    (
        "!has(self.spec.recipe.sharding) || self.spec.phases.all(p, p.task != 'FineTuneDecoder')",
        "recipe.sharding Full is not for a FineTuneDecoder phase, whose adaptive weight needs whole gradients; train it by a run without",
        ".spec.recipe.sharding",
    ),
)

_CURATION_RULES = (
    (
        "self.spec.phases.all(p, !has(p.curate) || p.curate.heldOutPercent == 0"
        f" || (self.spec.recipe.frames - 1) * p.curate.frameStride < {LONGEST_CLIP})",
        f"a clip of a Curate phase, (recipe.frames - 1) * frameStride + 1, may span {LONGEST_CLIP} frames of a video, since longer ones"
        " would hardly ever be held out; lower frameStride or frames, or set heldOutPercent to 0",
        ".spec.phases",
    ),
)

RUN_RULES: tuple[tuple[str, str, str], ...] = (
    (
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must have at most 40 characters, begin with a letter and contain only a-z, 0-9 and hyphens,"
        " because pods are named after it",
        "",
    ),
    (
        "self.spec.recipe.gradientAccumulationSteps < 1"
        f" || self.spec.phases.all(p, !(p.task in {[*_TRAINING, 'Tune']}) || [{REPLICAS} * {PROCESSES}].all(n, n < 1"
        " || self.spec.recipe.globalBatchSize % (n * self.spec.recipe.gradientAccumulationSteps) == 0))",
        "recipe.globalBatchSize must be divisible by workers.replicas * processes of a pod * gradientAccumulationSteps of"
        " every training or Tune phase; processes of a pod are workers.processes, else the GPUs in resources.limits, else 1",
        ".spec.recipe.globalBatchSize",
    ),
    (
        "self.spec.recipe.schedule.warmupSteps <= self.spec.recipe.steps",
        "recipe.schedule.warmupSteps may not be greater than recipe.steps",
        ".spec.recipe.schedule.warmupSteps",
    ),
    (
        "self.spec.recipe.steps >= 1 || self.spec.model.family == 'Text2VideoZero'",
        "recipe.steps must be greater than or equal to 1; a model of family Text2VideoZero alone may have 0",
        ".spec.recipe.steps",
    ),
    (
        "!has(self.spec.initFrom) || !has(self.spec.initFrom.run) || self.spec.initFrom.run != self.metadata.name",
        "initFrom.run names the run itself; name another run or a release, or leave initFrom out",
        ".spec.initFrom.run",
    ),
    *_FAMILY_RULES,
    *_SHARDING_RULES,
    (
        "has(self.spec.initFrom) || !self.spec.phases.exists(p, p.task in ['Evaluate', 'Release'])"
        f" || self.spec.phases.exists(p, p.task in {_TRAINING})",
        "without initFrom, a run that has an Evaluate or Release phase needs a training phase",
        ".spec.phases",
    ),
    *PHASE_RULES,
    *noise_shares.RUN_RULES,
    *tuning.RUN_RULES,
    (
        "has(self.spec.initFrom) || !self.spec.phases.exists(p, p.task in ['BuildTemplates', 'TestScenarios'])"
        " || self.spec.phases.exists(p, p.task == 'Evaluate')",
        "without initFrom, a run that has a BuildTemplates or TestScenarios phase needs an Evaluate phase",
        ".spec.phases",
    ),
    (
        "has(self.spec.initFrom) || !self.spec.phases.exists(p, p.task == 'Optimize')"
        f" || self.spec.phases.exists(p, p.task in {_TRAINING})",
        "without initFrom, a run that has an Optimize phase needs a training phase before it",
        ".spec.phases",
    ),
    *_CURATION_RULES,
    *resources.RUN_RULES,
)
