"""The prior over patches: seeded, phase-aware, biased to what can be heard.

Each patch has a random generator of its own, seeded by (seed, phase, split, index, attempt): patch 17 is the same
whether 20 or 20,000 are drawn, and a redraw (silent or clipped render) changes nothing but itself.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import PHASES, SPLITS, Patch, Patches
from unmixer_core.schema.rack import RACK

NONLINEAR_EFFECTS = ("Saturator", "Compressor", "Auto Filter")
ALWAYS_MOVING = 0.45
"""Share of patches in which a given modulation amount is not zero."""


class SamplingSettings(Protocol):
    """What sampling reads of params.yaml's `sample` section."""

    chain_length_weights: tuple[float, ...]
    order_audible_bias: float
    note_low: int
    note_high: int
    gate_low_s: float
    gate_high_s: float


def sample(n: int, phase: str, split: str, seed: int, settings: SamplingSettings, first_id: int = 0) -> Patches:
    """Draw n patches of a phase ("dry" | "nonlinear" | "full")."""
    patches = [draw(phase, split, index, seed, settings) for index in range(n)]
    return Patches.stack(patches, phase, split, first_id)


def draw(phase: str, split: str, index: int, seed: int, settings: SamplingSettings, attempt: int = 0) -> Patch:
    """The patch number `index` of a phase and split, on its `attempt`-th redraw."""
    rng = np.random.default_rng([seed, PHASES.index(phase), SPLITS.index(split), index, attempt])
    knobs = rng.random(RACK.n_knobs).astype(np.float32)
    choices = np.array([rng.integers(size) for size in RACK.sizes], dtype=np.int64)
    _bias_choices(rng, choices)
    _bias_knobs(rng, knobs)
    note = int(rng.integers(settings.note_low, settings.note_high + 1))
    gate_s = round(float(rng.uniform(settings.gate_low_s, settings.gate_high_s)), 3)
    chain = chains.encode(draw_chain(rng, phase, settings))
    return Patch(knobs, choices, chain, note, gate_s).canonical()


def draw_chain(rng: np.random.Generator, phase: str, settings: SamplingSettings) -> tuple[str, ...]:
    """An ordered chain: empty (dry), of the three non-linear effects (nonlinear), or of all eight (full)."""
    if phase == "dry":
        return ()
    if phase == "nonlinear":
        count = int(rng.integers(1, len(NONLINEAR_EFFECTS) + 1))
        return tuple(rng.permutation(NONLINEAR_EFFECTS)[:count])
    weights = np.asarray(settings.chain_length_weights, dtype=float)
    count = int(rng.choice(len(weights), p=weights / weights.sum()))
    chain = tuple(rng.permutation(RACK.effect_names)[:count])
    if count >= 2 and rng.random() < settings.order_audible_bias and not {"Saturator", "Compressor"} & set(chain):
        chain = _with_nonlinear(rng, chain)
    return chain


def _with_nonlinear(rng: np.random.Generator, chain: tuple[str, ...]) -> tuple[str, ...]:
    """Replace one effect by Saturator or Compressor, so that the order can be heard."""
    names = list(chain)
    names[int(rng.integers(len(names)))] = str(rng.choice(["Saturator", "Compressor"]))
    return tuple(names)


def _set_choice(choices: np.ndarray, key: str, item: int) -> None:
    choices[RACK.choice_index[key]] = item


def _bias_choices(rng: np.random.Generator, choices: np.ndarray) -> None:
    _set_choice(choices, "wavetable.osc_1_effect_mode", int(rng.choice(4, p=[0.55, 0.15, 0.15, 0.15])))
    _set_choice(choices, "wavetable.osc_2_on", int(rng.random() < 0.35))
    _set_choice(choices, "wavetable.sub_on", int(rng.random() < 0.3))
    _set_choice(choices, "wavetable.filter_1_on", int(rng.random() < 0.75))
    _set_choice(choices, "wavetable.filter_1_type", int(rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])))
    _set_choice(choices, "wavetable.unison_mode", int(rng.random() < 0.3))


def _bias_knobs(rng: np.random.Generator, knobs: np.ndarray) -> None:
    """Sparse modulation, envelopes that are heard, EQ gains away from zero."""
    for i, ref in enumerate(RACK.knobs):
        if ref.knob.bipolar_amount and rng.random() > ALWAYS_MOVING:
            knobs[i] = 0.5
        elif ref.knob.unit == "dB" and ref.knob.raw_low == -ref.knob.raw_high:
            knobs[i] = 0.5 + np.sign(knobs[i] - 0.5) * (0.1 + 0.8 * abs(knobs[i] - 0.5))
    _set_skewed(rng, knobs, "wavetable.amp_attack", 2.0)
    _set_skewed(rng, knobs, "wavetable.env_2_attack", 2.0)
    _set_skewed(rng, knobs, "wavetable.filter_1_drive", 1.5)


def _set_skewed(rng: np.random.Generator, knobs: np.ndarray, key: str, exponent: float) -> None:
    knobs[RACK.knob_index[key]] = float(rng.random()) ** exponent
