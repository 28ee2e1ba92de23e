"""params.yaml as frozen, typed sections.

Every number an experiment may change, refused early when it is wrong.

No number has a default here: a value lives once, in params.yaml (profiles/*.yaml override it), so
this module can change what is *allowed* but never what is *computed*, and no DVC stage depends on
it. Machine facts (devices, threads, hosts, tracking servers) are no experiment and live in the
environment (`UNMIXER_*`, `MLFLOW_*`).

    params = config.load("params.yaml")
    params.train.dry.epochs

Command line: `python -m unmixer_core.config check [FILE]`, `python -m unmixer_core.config apply
profiles/studio.yaml`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, model_validator

from unmixer_core.schema.chain import MAX_EFFECTS

Count = Annotated[int, Ge(0)]
Size = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Lt(2**31)]
Share = Annotated[float, Ge(0.0), Le(1.0)]
BelowOne = Annotated[float, Ge(0.0), Lt(1.0)]
Open01 = Annotated[float, Gt(0.0), Lt(1.0)]
Weight = Annotated[float, Ge(0.0)]
Positive = Annotated[float, Gt(0.0)]
Note = Annotated[int, Ge(0), Le(127)]
Rate = Annotated[int, Ge(8000), Le(192_000)]


class Section(BaseModel):
    """Base of every section: immutable, strict types, no unknown keys.

    An `x_low` never exceeds its `x_high`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        for low in (name for name in type(self).model_fields if "_low" in name):
            high = low.replace("_low", "_high")
            if hasattr(self, high) and getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} = {getattr(self, low)} must not be above {high} = {getattr(self, high)}"
                )
        return self


class Audio(Section):
    """Clips: their rate and length, and how hard the key is struck."""

    sample_rate: Rate
    clip_s: Annotated[float, Gt(0.0), Le(30.0)]
    velocity: Annotated[int, Ge(1), Le(127)]


class Sample(Section):
    """The prior over patches, and how many of each phase and split are drawn."""

    seed: Seed
    test_seed: Seed
    n_dry: Count
    n_nonlinear: Count
    n_full: Count
    n_valid_dry: Count
    n_valid_nonlinear: Count
    n_valid_full: Count
    n_test_dry: Count
    n_test_nonlinear: Count
    n_test_full: Count
    chain_length_weights: Annotated[tuple[Weight, ...], MinLen(1), MaxLen(MAX_EFFECTS + 1)]
    order_audible_bias: Share
    p_osc_2: Share
    p_sub: Share
    p_filter: Share
    p_unison: Share
    p_effect_mode: Share
    p_modulation: Share
    p_stop: Share
    note_low: Note
    note_high: Note
    gate_low_s: Positive
    gate_high_s: Positive


class Render(Section):
    """Which renders count as audible, and how they are stored."""

    min_loudness_lufs: Annotated[float, Ge(-120.0), Le(0.0)]
    max_peak: Positive
    max_redraws: Count
    shard_clips: Size


class Features(Section):
    """The log-mel frames the encoder reads; `hop` counts samples at audio.sample_rate.

    `store`: keep them on disk, or make them from the clips (on the GPU) at every use.
    """

    n_fft: Annotated[int, Ge(64), Le(65536)]
    hop: Size
    n_mels: Annotated[int, Ge(8), Le(512)]
    fmin_hz: Weight
    fmax_hz: Positive
    floor_db: Annotated[float, Ge(-200.0), Lt(0.0)]
    store: bool


class ProxyFit(Section):
    """The differentiable twin of the host and its calibration."""

    kind: Literal["ddsp", "neural"]
    sample_rate: Rate
    seed: Seed
    table_note: Note
    table_positions: Count
    batch: Size
    lr: Positive
    steps_dry: Count
    steps_effects: Count
    steps_chains: Count
    held_out: Count
    n_ffts: Annotated[tuple[Annotated[int, Ge(16), Le(65536)], ...], MinLen(1)]
    neural_clips: Size
    neural_steps: Count
    neural_batch: Size
    neural_lr: Positive
    neural_width: Size


class ProxyClips(Section):
    """Training clips that the proxy renders, of the same prior as `sample`.

    Only their frames are kept.
    """

    seed: Seed
    n_dry: Count
    n_nonlinear: Count
    n_full: Count
    batch: Size
    shard_clips: Size


class Model(Section):
    """The un-mixer's widths and its manifold."""

    width: Size
    embedding: Size
    harmonics: Count
    dropout: BelowOne
    components: Size
    rank: Count
    sigma_floor: Positive
    stops: bool
    knob_hidden: Size
    manifold: Literal["poincare", "euclidean"]
    ball_dim: Size
    curvature: Positive
    radius: Positive
    chain_hidden: Size


class Loss(Section):
    """Weights of the hybrid loss and the schedule of its spectral part (shares of a phase)."""

    lambda_p: Weight
    lambda_c: Weight
    lambda_o: Weight
    lambda_e: Weight
    lambda_s: Weight
    nll_cap: Positive
    label_smoothing: BelowOne
    spectral_clips: Size
    spectral_every: Size
    spectral_start: Share
    spectral_ramp: Share
    temperature_start: Positive
    temperature_end: Positive
    audio_to_choices: bool
    audio_to_chain: bool


class Optim(Section):
    """GCWD: gradient clipping with decoupled weight decay, under a one-cycle schedule."""

    lr: Positive
    warmup: Share
    beta1: BelowOne
    beta2: BelowOne
    eps: Positive
    weight_decay: Weight
    clip: Literal["norm", "element", "none"]
    threshold: Positive
    percentile: Annotated[float, Gt(0.0), Le(100.0)] | None
    manifold_lr: Weight
    ema: BelowOne


class Augment(Section):
    """Changes of the log-mel frames while training."""

    noise_db: Weight
    gain_db: Weight
    shift_frames: Count
    mask_mels: Count
    mask_frames: Count


class TrainPhase(Section):
    """One phase of the curriculum."""

    seed: Seed
    epochs: Count
    proxy_epochs: Count
    batch: Size
    replay: BelowOne
    lr_scale: Positive


class TrainDry(TrainPhase):
    """Phase 1: Wavetable alone."""


class TrainFx(TrainPhase):
    """Phase 2: nonlinear effects."""


class TrainFull(TrainPhase):
    """Phase 3: full chains."""


class Train(Section):
    """The curriculum."""

    dry: TrainDry
    fx: TrainFx
    full: TrainFull


class Score(Section):
    """How metrics are summarised."""

    bootstrap: Size
    confidence: Open01
    coverage: Annotated[tuple[Open01, ...], MinLen(1)]
    seed: Seed


class Evaluate(Section):
    """Which test clips are judged, and beside which baselines."""

    n_dry: Count
    n_nonlinear: Count
    n_full: Count
    n_baseline: Count
    n_detail: Count
    n_retrieval: Count
    n_gap: Count
    n_ceiling: Count
    candidates: Size
    seeds: Count
    n_examples: Count
    seed: Seed


class Itf(Section):
    """Inference-time finetuning and its benchmark."""

    n_clips: Size
    n_outside: Count
    n_sensitivity: Count
    proposals: Size
    seeds: Count
    candidates: Size
    steps: Count
    lr: Positive
    lambda_b: Weight
    clip_norm: Weight
    logit_limit: Positive
    clip_s: Positive
    n_retrieval: Count
    cma_population: Annotated[int, Ge(2)]
    cma_sigma: Positive
    cma_max_seconds: Weight
    encoder_steps: Count
    encoder_lr: Positive
    unmix_seconds: Weight
    try_steps: tuple[Count, ...]
    try_lr: tuple[Positive, ...]
    try_lambda_b: tuple[Weight, ...]
    seed: Seed


class Unmix(Section):
    """The `unmix` command: how many candidates, how long, and how its similarity is read."""

    seconds: Weight
    itf_seconds: Weight
    candidates: Size
    proposals: Size
    notes: Size
    gates: Size
    neighbours: Count
    shortlist: Count
    n_retrieval: Count
    changes: Count
    changes_paired: Count
    changes_refined: Count
    changes_steps: Count
    change_share: Share
    fast_candidates: Size
    fast_proposals: Size
    fast_notes: Size
    polish_population: Annotated[int, Ge(2)]
    polish_sigma: Positive
    chance_db: Positive
    poor_db: Positive
    seed: Seed


class Params(Section):
    """All sections, in the order of the pipeline."""

    audio: Audio
    sample: Sample
    render: Render
    features: Features
    proxy: ProxyFit
    proxy_clips: ProxyClips
    model: Model
    loss: Loss
    optim: Optim
    augment: Augment
    train: Train
    score: Score
    evaluate: Evaluate
    itf: Itf
    unmix: Unmix

    @property
    def digest(self) -> str:
        """Eight hex digits that name these values (comments and key order do not count)."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[
            :8
        ]


def sections() -> dict[type[Section], str]:
    """Every leaf section class and its dotted key: {TrainDry: "train.dry", ...}."""
    return dict(_sections_of(Params, ""))


def section(params: Params, kind: type[Section]) -> Section:
    """The section of class `kind`; KeyError if `kind` is not one of `sections()`."""
    value: Section = params
    for key in sections()[kind].split("."):
        value = getattr(value, key)
    return value


def _sections_of(kind: type[Section], prefix: str) -> Iterator[tuple[type[Section], str]]:
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            holds_sections = list(_sections_of(inner, f"{prefix}{name}."))
            yield from holds_sections or [(inner, f"{prefix}{name}")]
