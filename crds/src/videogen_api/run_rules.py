"""CEL rules over a whole TrainingRun, and over its spec: each with its message and the field that it is about."""

from __future__ import annotations

from videogen_api import noise_shares, resources, tuning
from videogen_api.cel import merged
from videogen_api.curation import LONGEST_CLIP
from videogen_api.phase_training import PHASE_RULES
from videogen_api.resources import PROCESSES, REPLICAS
from videogen_api.training_run import TRAINING

_Rules = tuple[tuple[str, str, str], ...]
_TRAINING = [task.value for task in TRAINING]

_LATENT = "fusion.exists(f, f.space == 'Latent')"
# A recipe has the block of its model's family, or none.
_FAMILY_RULES: _Rules = (
    ("family == 'VideoFusion' || size(fusion) == 0", "is for models of family VideoFusion; leave it out", "recipe.videoFusion"),
    (
        "family == 'AlignYourLatents' || size(latents) == 0",
        "is for models of family AlignYourLatents; leave it out",
        "recipe.alignYourLatents",
    ),
    (
        "family == 'Text2VideoZero' || !has(recipe.text2VideoZero)",
        "is for models of family Text2VideoZero; leave it out",
        "recipe.text2VideoZero",
    ),
    (
        f"!has(recipe.backbone) || !has(self.initFrom) && (family != 'VideoFusion' || {_LATENT})",
        "is for models of family AlignYourLatents and Text2VideoZero, and VideoFusion in videoFusion.space Latent,"
        " and not beside initFrom, which has an image model",
        "recipe.backbone",
    ),
    (
        f"family != 'VideoFusion' || !{_LATENT} || has(recipe.backbone) || has(self.initFrom)",
        "Latent needs an autoencoder: that of recipe.backbone, or of a run or release in initFrom",
        "recipe.videoFusion.space",
    ),
    (
        "!recipe.cacheLatents || family == 'AlignYourLatents'"
        " || (family == 'Text2VideoZero' && (has(recipe.backbone) || has(self.initFrom)))",
        "needs encoders that do not learn: those of family AlignYourLatents, or of Text2VideoZero with backbone or initFrom",
        "recipe.cacheLatents",
    ),
    (
        "family != 'VideoFusion' || !has(recipe.loss.predictionType)",
        "is for models of family AlignYourLatents and Text2VideoZero; leave it out",
        "recipe.loss.predictionType",
    ),
)

_SHARDING_RULES: _Rules = (
    (
        "!is_sharded || recipe.optimizer.name != 'AdamW8bit'",
        "Full is not for optimizer AdamW8bit, whose blocks of 256 weights would not end where the shards do; take AdamW",
        "recipe.sharding",
    ),
    (
        "!is_sharded || !recipe.compile",
        "Full and recipe.compile are not used together; leave one of them out",
        "recipe.sharding",
    ),
    (
        "!is_sharded || recipe.precision != 'FP16'",
        "Full is not for precision FP16; take BF16 or FP32",
        "recipe.sharding",
    ),
    (
        "!is_sharded || !('FineTuneDecoder' in tasks)",
        "Full is not for a FineTuneDecoder phase, whose adaptive weight needs whole gradients; train it by a run without",
        "recipe.sharding",
    ),
)

_PHASES_RULES: _Rules = (
    (
        f"has(self.initFrom) || !tasks.exists(t, t in ['Evaluate', 'Release', 'Optimize']) || tasks.exists(t, t in {_TRAINING})",
        "without initFrom, a run that has an Evaluate, Optimize or Release phase needs a training phase",
        "phases",
    ),
    (
        "has(self.initFrom) || !tasks.exists(t, t in ['BuildTemplates', 'TestScenarios']) || 'Evaluate' in tasks",
        "without initFrom, a run that has a BuildTemplates or TestScenarios phase needs an Evaluate phase",
        "phases",
    ),
    (
        "!('Curate' in tasks) || phases.all(p, !has(p.curate) || p.curate.heldOutPercent == 0"
        f" || (recipe.frames - 1) * p.curate.frameStride < {LONGEST_CLIP})",
        f"a clip of a Curate phase, (recipe.frames - 1) * frameStride + 1, may span {LONGEST_CLIP} frames of a video, since longer ones"
        " would hardly ever be held out; lower frameStride or frames, or set heldOutPercent to 0",
        "phases",
    ),
)

_STEPS_RULES: _Rules = (
    (
        "recipe.gradientAccumulationSteps < 1"
        f" || phases.all(p, !(p.task in {[*_TRAINING, 'Tune']}) || [{REPLICAS} * {PROCESSES}].all(n, n < 1"
        " || recipe.globalBatchSize % (n * recipe.gradientAccumulationSteps) == 0))",
        "must be divisible by workers.replicas * processes of a pod * gradientAccumulationSteps of"
        " every training or Tune phase; processes of a pod are workers.processes, else the GPUs in resources.limits, else 1",
        "recipe.globalBatchSize",
    ),
    (
        "recipe.schedule.warmupSteps <= recipe.steps",
        "may not be greater than recipe.steps",
        "recipe.schedule.warmupSteps",
    ),
    (
        "family == 'Text2VideoZero' || recipe.steps >= 1",
        "must be greater than or equal to 1; a model of family Text2VideoZero alone may have 0",
        "recipe.steps",
    ),
)

RUN_RULES: _Rules = (
    (
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must have at most 40 characters, begin with a letter and contain only a-z, 0-9 and hyphens,"
        " because pods are named after it",
        "",
    ),
    (
        "!has(self.spec.initFrom) || !has(self.spec.initFrom.run) || self.spec.initFrom.run != self.metadata.name",
        "initFrom.run names the run itself; name another run or a release, or leave initFrom out",
        ".spec.initFrom.run",
    ),
)
_OF_AN_OLDER_API = (
    "!has(self.model) || !has(self.model.family) || !has(self.recipe) || !has(self.phases) || self.phases.exists(p, !has(p.task))"
)
SPEC_RULE = merged(
    [
        (rule, f"spec.{field}: {message}")
        for rule, message, field in (
            *_STEPS_RULES,
            *_FAMILY_RULES,
            *_SHARDING_RULES,
            *_PHASES_RULES,
            *PHASE_RULES,
            *noise_shares.RUN_RULES,
            *tuning.RUN_RULES,
            *resources.RUN_RULES,
        )
    ],
    lacks=_OF_AN_OLDER_API,
    family="self.model.family",
    recipe="self.recipe",
    fusion="has(recipe.videoFusion) ? [recipe.videoFusion] : []",
    latents="has(recipe.alignYourLatents) ? [recipe.alignYourLatents] : []",
    is_sharded="has(recipe.sharding)",
    phases="self.phases.map(p, p)",
    tasks="phases.map(p, p.task)",
)
