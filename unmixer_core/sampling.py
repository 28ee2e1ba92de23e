"""The prior over patches: seeded, phase-aware, biased to what can be heard.

Each patch has a random generator of its own, seeded by (seed, phase, split, index, attempt): patch
17 is the same whether 20 or 20,000 are drawn, and a redraw (silent or clipped render) changes
nothing but itself.
"""

from __future__ import annotations

import numpy as np

from unmixer_core import config
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import PHASES, SPLITS, Patch, Patches
from unmixer_core.schema.rack import RACK

NONLINEAR_EFFECTS = ("Saturator", "Compressor", "Auto Filter")
#: Unit ranges that are drawn, where the learned range begins with settings that can hardly be
#: heard. (Drawn over their whole range, a quarter of the saturators and two thirds of the
#: compressors changed the host's sound by less than 1 dB MSS.)
AUDIBLE: dict[str, tuple[float, float]] = {
    "wavetable.amp_sustain": (0.15, 1.0),
    "wavetable.filter_1_freq": (0.0, 0.9),
    "auto_filter.frequency": (0.0, 0.88),
    "saturator.drive": (0.4, 1.0),
    "saturator.dry_wet": (0.4, 1.0),
    "compressor.threshold": (0.0, 0.3),
    "compressor.ratio": (0.5, 1.0),
    "compressor.dry_wet": (0.6, 1.0),
    "chorus_ensemble.amount": (0.25, 1.0),
    "chorus_ensemble.dry_wet": (0.35, 1.0),
    "phaser_flanger.amount": (0.25, 1.0),
    "phaser_flanger.dry_wet": (0.35, 1.0),
    "delay.feedback": (0.15, 1.0),
    "delay.dry_wet": (0.25, 1.0),
    "reverb.dry_wet": (0.25, 1.0),
}
#: An EQ gain is drawn at least this far from zero (in unit: 4.5 dB).
QUIETEST_GAIN = 0.15


def sample(
    n: int, phase: str, split: str, seed: int, settings: config.Sample, first_id: int = 0
) -> Patches:
    """Draw n patches of a phase ("dry" | "nonlinear" | "full")."""
    patches = [draw(phase, split, index, seed, settings) for index in range(n)]
    return Patches.stack(patches, phase, split, first_id)


def draw(
    phase: str, split: str, index: int, seed: int, settings: config.Sample, attempt: int = 0
) -> Patch:
    """The patch number `index` of a phase and split, on its `attempt`-th redraw."""
    rng_seed = [seed, PHASES.index(phase), SPLITS.index(split), index, attempt]
    rng = np.random.default_rng(rng_seed)
    knobs = rng.random(RACK.n_knobs).astype(np.float32)
    choices = np.array([rng.integers(size) for size in RACK.sizes], dtype=np.int64)
    _bias_choices(rng, choices, settings)
    _bias_knobs(rng, knobs, settings)
    # A generator of its own: knobs that stay away from their stops are the same whatever p_stop is.
    _turn_all_the_way(np.random.default_rng([*rng_seed, 1]), knobs, settings.p_stop)
    note = int(rng.integers(settings.note_low, settings.note_high + 1))
    gate_s = round(float(rng.uniform(settings.gate_low_s, settings.gate_high_s)), 3)
    chain = chains.encode(draw_chain(rng, phase, settings))
    return Patch(knobs, choices, chain, note, gate_s).canonical()


def draw_chain(rng: np.random.Generator, phase: str, settings: config.Sample) -> tuple[str, ...]:
    """An ordered chain: empty (dry), of the three non-linear effects (nonlinear), or of all
    effects (full).
    """
    if phase == "dry":
        return ()
    if phase == "nonlinear":
        count = int(rng.integers(1, len(NONLINEAR_EFFECTS) + 1))
        return tuple(rng.permutation(NONLINEAR_EFFECTS)[:count])
    weights = np.asarray(settings.chain_length_weights, dtype=float)
    count = int(rng.choice(len(weights), p=weights / weights.sum()))
    chain = tuple(rng.permutation(RACK.effect_names)[:count])
    if (
        count >= 2
        and rng.random() < settings.order_audible_bias
        and not {"Saturator", "Compressor"} & set(chain)
    ):
        chain = _with_nonlinear(rng, chain)
    return chain


def _with_nonlinear(rng: np.random.Generator, chain: tuple[str, ...]) -> tuple[str, ...]:
    """Replace one effect by Saturator or Compressor, so that the order can be heard."""
    names = list(chain)
    names[int(rng.integers(len(names)))] = str(rng.choice(["Saturator", "Compressor"]))
    return tuple(names)


def _set_choice(choices: np.ndarray, key: str, item: int) -> None:
    choices[RACK.choice_index[key]] = item


def _bias_choices(rng: np.random.Generator, choices: np.ndarray, settings: config.Sample) -> None:
    plain, other = 1.0 - settings.p_effect_mode, settings.p_effect_mode / 3.0
    _set_choice(
        choices, "wavetable.osc_1_effect_mode", int(rng.choice(4, p=[plain, other, other, other]))
    )
    _set_choice(choices, "wavetable.osc_2_on", int(rng.random() < settings.p_osc_2))
    _set_choice(choices, "wavetable.sub_on", int(rng.random() < settings.p_sub))
    _set_choice(choices, "wavetable.filter_1_on", int(rng.random() < settings.p_filter))
    _set_choice(choices, "wavetable.filter_1_type", int(rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])))
    _set_choice(choices, "wavetable.unison_mode", int(rng.random() < settings.p_unison))


def _bias_knobs(rng: np.random.Generator, knobs: np.ndarray, settings: config.Sample) -> None:
    """Sparse modulation, envelopes and effects that are heard, EQ gains away from zero."""
    for i, ref in enumerate(RACK.knobs):
        if ref.knob.bipolar_amount and rng.random() > settings.p_modulation:
            knobs[i] = 0.5
        elif ref.knob.unit == "dB" and ref.knob.raw_low == -ref.knob.raw_high:
            away = abs(knobs[i] - 0.5) / 0.5
            knobs[i] = 0.5 + np.sign(knobs[i] - 0.5) * (
                QUIETEST_GAIN + (0.5 - QUIETEST_GAIN) * away
            )
        elif ref.id in AUDIBLE:
            low, high = AUDIBLE[ref.id]
            knobs[i] = low + (high - low) * knobs[i]
    _set_skewed(rng, knobs, "wavetable.amp_attack", 2.0)
    _set_skewed(rng, knobs, "wavetable.env_2_attack", 2.0)
    _set_skewed(rng, knobs, "wavetable.filter_1_drive", 1.5)


def _turn_all_the_way(rng: np.random.Generator, knobs: np.ndarray, share: float) -> None:
    """A share of the knobs set to one of their stops, as people leave a mix at 100 % or a drive
    at 0; not a stop that lies outside what is drawn, nor a modulation amount's, whose usual
    place is zero.
    """
    turned, high = rng.random(len(knobs)) < share, rng.random(len(knobs)) < 0.5
    for i in np.flatnonzero(turned):
        stops = [stop for stop in AUDIBLE.get(RACK.knobs[i].id, (0.0, 1.0)) if stop in (0.0, 1.0)]
        if stops and not RACK.knobs[i].knob.bipolar_amount:
            knobs[i] = stops[-1] if high[i] else stops[0]


def _set_skewed(rng: np.random.Generator, knobs: np.ndarray, key: str, exponent: float) -> None:
    knobs[RACK.knob_index[key]] = float(rng.random()) ** exponent
