"""Vital's own formats: the code of an effect order, and the wavetables, LFO shapes and sample of
a preset.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cache

import numpy as np

from unmixer_core.system.json_types import Json

EFFECT_SLOTS = (
    "chorus",
    "compressor",
    "delay",
    "distortion",
    "eq",
    "filter_fx",
    "flanger",
    "phaser",
    "reverb",
)
MIDDLE_C_HZ = 261.6255653
SINE_SAMPLES = 128
LFO_POINTS: tuple[
    tuple[list[float], bool], ...
] = (  # Live's Sine, Triangle, Sawtooth (up), Rectangle, Noise; y points down
    ([0.0, 1.0, 0.5, 0.0, 1.0, 1.0], True),
    ([0.0, 1.0, 0.5, 0.0, 1.0, 1.0], False),
    ([0.0, 1.0, 1.0, 0.0], False),
    ([0.0, 0.0, 0.5, 0.0, 0.5, 1.0, 1.0, 1.0], False),
    ([0.0, 0.3, 0.2, 0.9, 0.4, 0.1, 0.6, 0.8, 0.8, 0.2, 1.0, 0.3], False),
)


@cache
def skeleton() -> Json:
    """The init preset of the installed vita as a dictionary; do not change it.

    Building one costs a Synth (about 65 ms).
    """
    import vita

    return json.loads(vita.Synth().to_json())


def chain_code(slots: Sequence[str]) -> float:
    """effect_chain_order for effects in this order, the others behind them.

    The Lehmer code that Vital decodes.
    """
    order = [EFFECT_SLOTS.index(slot) for slot in slots]
    order += [i for i in range(len(EFFECT_SLOTS)) if i not in order]
    code = 0
    for i in range(1, len(order)):
        code = code * (i + 1) + sum(order[i] < order[j] for j in range(i))
    return float(code)


def table(name: str, encoded_frames: Sequence[str], last_position: int) -> Json:
    """A wavetable whose frames stand at equal distances from 0 to `last_position`, cross-faded
    linearly in time.
    """
    step = last_position / max(len(encoded_frames) - 1, 1)
    keyframes = [
        {"position": round(i * step), "wave_data": data} for i, data in enumerate(encoded_frames)
    ]
    component = {
        "type": "Wave Source",
        "interpolation": 0,
        "interpolation_style": 1,
        "keyframes": keyframes,
    }
    header = {
        "author": "Neural Un-Mixer",
        "name": name,
        "full_normalize": False,
        "remove_all_dc": False,
        "version": "1.5.5",
    }
    return header | {"groups": [{"components": [component]}]}


def lfo_shape(shape: int) -> Json:
    """An LFO line by Live's LFO Shape.

    With phase 0.25 the sine and the triangle start at their rising zero.
    """
    points, smooth = LFO_POINTS[shape]
    count = len(points) // 2
    return {
        "name": f"Live {shape}",
        "num_points": count,
        "points": points,
        "powers": [0.0] * count,
        "smooth": smooth,
    }


@cache
def fm_sample() -> Json:
    """A looped sine whose pitch, with key tracking, is the note's.

    The modulator of the oscillators' FM mode.
    """
    cycles = np.sin(2 * np.pi * np.arange(16 * SINE_SAMPLES) / SINE_SAMPLES)
    data = base64.b64encode(np.round(32767 * cycles).astype("<i2").tobytes()).decode()
    rate = round(MIDDLE_C_HZ * SINE_SAMPLES)
    return {"name": "Sine", "length": len(cycles), "sample_rate": rate, "samples": data}
