"""AutoFilter2, the Auto Filter of Live 12.2 and later: its table and its values on the old scales.

Order and ranges follow Live's XML as far as it is known. The parameter names of the API and the
scales of Frequency, Drive and LFO Amount are assumptions: nobody has read them from a running Live
yet. The device sounds as the old class does, because Vital has one filter.
"""

from __future__ import annotations

import math

from unmixer_core.errors import HostError
from unmixer_core.headless.sound.device_state import DeviceState, to_note
from unmixer_core.schema.devices import Parameter

NAME = "Auto Filter"
CLASS_NAME = "AutoFilter2"
#: The filter types that the old class has too, in the order of their values.
KNOWN_TYPES = ("Lowpass", "Highpass", "Bandpass", "Notch", "Morph")
#: Drive in dB at a value of 1.
DRIVE_DB = 24.0


def _row(
    name: str, default: float, low: float = 0.0, high: float = 1.0, quantized: bool = False
) -> Parameter:
    return Parameter(name, default, low, high, quantized)


#: 45 rows. The defaults are those of a user's preset that moves the filter, not those of Live, so
#: that tests show which parameters a client sets.
TABLE = (
    _row("Device On", 1.0, quantized=True),
    _row("Frequency", 1.0),
    _row("Resonance", 0.0),
    _row("Morph", 0.0),
    _row("Type", 0.0, high=9.0, quantized=True),
    _row("Slope", 0.0, quantized=True),
    _row("Morph Slope", 0.0, high=3.0, quantized=True),
    _row("Circuit", 1.0, high=3.0, quantized=True),
    _row("Drive", 0.0),
    _row("DJ", 0.0, -1.0),
    _row("Vowel Pitch", 0.0, -36.0, 36.0),
    _row("Vowel Formant", 0.0),
    _row("LFO Amount", 0.25),
    _row("LFO Waveform", 0.0, high=7.0, quantized=True),
    _row("LFO Time Mode", 0.0, high=5.0, quantized=True),
    _row("LFO Freq", 0.4),
    _row("LFO Time", 0.4),
    _row("LFO Synced Rate", 4.0, high=21.0),
    _row("LFO 16th", 4.0, 1.0, 64.0),
    _row("LFO Phase", 0.0),
    _row("LFO Phase Offset", 0.0),
    _row("LFO Stereo Mode", 0.0, quantized=True),
    _row("LFO Spin", 0.0),
    _row("LFO Morph", 0.5),
    _row("LFO Smoothing", 0.0),
    _row("LFO Quantization Mode", 0.0, high=2.0, quantized=True),
    _row("LFO Steps", 8.0, 2.0, 32.0),
    _row("LFO S&H Rate", 0.5),
    _row("Env Amount", 0.5, -1.0),
    _row("Env Attack", 0.1),
    _row("Env Hold", 0.0),
    _row("Env Release", 0.3),
    _row("Env S&H On", 0.0, quantized=True),
    _row("Env S&H Rate", 0.5),
    _row("Output", 0.5),
    _row("Soft Clip", 1.0, quantized=True),
    _row("Dry/Wet", 0.5),
    _row("S/C EQ On", 0.0, quantized=True),
    _row("S/C EQ Type", 0.0, high=5.0, quantized=True),
    _row("S/C EQ Freq", 0.5),
    _row("S/C EQ Q", 0.5),
    _row("S/C EQ Gain", 0.0, -15.0, 15.0),
    _row("S/C On", 0.0, quantized=True),
    _row("S/C Gain", 0.4),
    _row("S/C Mix", 1.0),
)
#: Parameters that the voice does not support, with the only value that it accepts.
NEUTRAL = {"Circuit": 0.0, "LFO Amount": 0.0, "Env Amount": 0.0, "Soft Clip": 0.0, "Dry/Wet": 1.0}


def as_old(state: DeviceState) -> DeviceState:
    """The state of the old class with the same sound.

    Raises HostError for a value that Vital cannot imitate, so that no value is ignored.
    """
    values = state.values
    unsupported = [name for name, neutral in NEUTRAL.items() if values[name] != neutral]
    if values["Type"] >= len(KNOWN_TYPES):
        unsupported.append("Type")
    if unsupported and values["Device On"] > 0.5:
        name = unsupported[0]
        raise HostError(f"The embedded host cannot sound Auto Filter's {name} at {values[name]:g}.")
    pitch = to_note(20.0 * math.pow(1000.0, values["Frequency"]))
    old = {"Frequency": pitch, "Drive": DRIVE_DB * values["Drive"], "Filter Type": values["Type"]}
    for name in ("Device On", "Resonance", "Morph", "Slope"):
        old[name] = values[name]
    return DeviceState(NAME, old)
