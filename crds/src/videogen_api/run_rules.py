"""CEL rules over a whole TrainingRun: each with its message and the field that it is about."""

from __future__ import annotations

from videogen_api import noise_shares, resources, tuning
from videogen_api.curation import LONGEST_CLIP
from videogen_api.phase_training import PHASE_RULES
from videogen_api.training_run import TRAINING

_TRAINING = [task.value for task in TRAINING]

# A recipe has the block of its model's type. videoFusion has a default, which the API server puts into every recipe; 0.1 was one of them.
_FAMILY_RULES = (
    (
        "self.spec.model.type == 'videofusion' || (self.spec.recipe.videoFusion.baseNoiseShare == '0.70'"
        " && self.spec.recipe.videoFusion.residualNoiseShare == '0.30'"
        " && (!has(self.spec.recipe.videoFusion.baseLearningRateScale) || self.spec.recipe.videoFusion.baseLearningRateScale == '0.1')"
        " && !has(self.spec.recipe.videoFusion.contentProfile) && !has(self.spec.recipe.videoFusion.baseNoiseShares)"
        " && self.spec.recipe.videoFusion.textGuidance == '1'"
        " && self.spec.recipe.videoFusion.space == 'Pixel')",
        "recipe.videoFusion is for models of type videofusion; leave it out",
        ".spec.recipe.videoFusion",
    ),
    (
        "self.spec.model.type == 'align-your-latents' || !has(self.spec.recipe.alignYourLatents)",
        "recipe.alignYourLatents is for models of type align-your-latents; leave it out",
        ".spec.recipe.alignYourLatents",
    ),
    (
        "self.spec.model.type == 'text2video-zero' || !has(self.spec.recipe.text2VideoZero)",
        "recipe.text2VideoZero is for models of type text2video-zero; leave it out",
        ".spec.recipe.text2VideoZero",
    ),
    (
        "!has(self.spec.recipe.backbone) || !has(self.spec.initFrom)"
        " && (self.spec.model.type != 'videofusion' || self.spec.recipe.videoFusion.space == 'Latent')",
        "recipe.backbone is for models of type align-your-latents and text2video-zero, and videofusion in videoFusion.space Latent,"
        " and not beside initFrom, which has an image model",
        ".spec.recipe.backbone",
    ),
    (
        "self.spec.recipe.videoFusion.space != 'Latent' || has(self.spec.recipe.backbone) || has(self.spec.initFrom)",
        "videoFusion.space Latent needs an autoencoder: that of recipe.backbone, or of a run or release in initFrom",
        ".spec.recipe.videoFusion.space",
    ),
    (
        "!self.spec.recipe.cacheLatents || self.spec.model.type == 'align-your-latents'"
        " || (self.spec.model.type == 'text2video-zero' && (has(self.spec.recipe.backbone) || has(self.spec.initFrom)))",
        "recipe.cacheLatents needs encoders that do not learn: those of type align-your-latents, or of text2video-zero with backbone or"
        " initFrom",
        ".spec.recipe.cacheLatents",
    ),
    (
        "self.spec.model.type != 'videofusion' || !has(self.spec.recipe.loss.predictionType)",
        "recipe.loss.predictionType is for models of type align-your-latents and text2video-zero; leave it out",
        ".spec.recipe.loss.predictionType",
    ),
)

_SHARDING_RULES = (
    (
        "self.spec.recipe.sharding == 'None' || self.spec.recipe.optimizer.name != 'AdamW8bit'",
        "recipe.sharding Full is not for optimizer AdamW8bit, whose blocks of 256 weights would not end where the shards do; take AdamW",
        ".spec.recipe.sharding",
    ),
    (
        "self.spec.recipe.sharding == 'None' || !self.spec.recipe.compile",
        "recipe.sharding Full and recipe.compile are not used together; leave one of them out",
        ".spec.recipe.sharding",
    ),
    (
        "self.spec.recipe.sharding == 'None' || self.spec.recipe.precision != 'FP16'",
        "recipe.sharding Full is not for precision FP16; take BF16 or FP32",
        ".spec.recipe.sharding",
    ),
    (
        "self.spec.recipe.sharding == 'None' || self.spec.phases.all(p, p.task != 'FineTuneDecoder')",
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
        f" || self.spec.phases.all(p, !(p.task in {[*_TRAINING, 'Tune']}) || p.resources.workers < 1"
        " || (has(p.resources.processesPerWorker) && p.resources.processesPerWorker < 1)"
        " || self.spec.recipe.globalBatchSize % (p.resources.workers *"
        " (has(p.resources.processesPerWorker) ? p.resources.processesPerWorker :"
        " (p.resources.gpusPerWorker > 0 ? p.resources.gpusPerWorker : 1))"
        " * self.spec.recipe.gradientAccumulationSteps) == 0)",
        "recipe.globalBatchSize must be divisible by workers * processes per worker * gradientAccumulationSteps of"
        " every training or Tune phase; processes per worker is processesPerWorker, else gpusPerWorker, else 1",
        ".spec.recipe.globalBatchSize",
    ),
    (
        "self.spec.recipe.schedule.warmupSteps <= self.spec.recipe.steps",
        "recipe.schedule.warmupSteps may not be greater than recipe.steps",
        ".spec.recipe.schedule.warmupSteps",
    ),
    (
        "self.spec.recipe.steps >= 1 || self.spec.model.type == 'text2video-zero'",
        "recipe.steps must be greater than or equal to 1; a model of type text2video-zero alone may have 0",
        ".spec.recipe.steps",
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
