"""Wavetable and the effects as data: names, ranges, laws and choices.

Names, ranges and laws are Live 12's, from AbletonOSC's dumps (`TABLES`, the full parameter tables)
and presets. The learned range of a knob is the part of Live's range that musicians use and that can
be heard in a two-second note. A new effect is one `Device` here with its table in
tables.json, one function in dsp/ with a module in proxy/effects.py, and one mapping in
headless/sound/voice.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from unmixer_core.schema.knob import (
    Address,
    Amplitude,
    Choice,
    Condition,
    Exponential,
    Knob,
    Law,
    Linear,
    MidiPitch,
    Power,
    Ratio,
)

#: The wavetables of the embedded host's one category, in order; real Live resolves them by name.
WAVETABLES = (
    "Basic Shapes",
    "Sub 1",
    "Saw Dual 1",
    "Pulse PW",
    "Sines 1",
    "Harmonic Series",
    "FM Feedback",
    "FM Fold",
    "AEIOU",
    "Sync Digital",
    "Bell",
    "Organ",
    "Strings 1",
    "Vocal Sines",
    "Bit Sweep",
    "Squarrely",
)


@dataclass(frozen=True)
class Parameter:
    """One row of a device's full parameter table, as Live reports it."""

    name: str
    default: float
    minimum: float
    maximum: float
    quantized: bool


@dataclass(frozen=True)
class Device:
    """A Live device: its learned knobs and choices, and its fixed parameters.

    `lti`: the effect is linear and time-invariant, so two such neighbours commute.
    """

    key: str
    name: str
    knobs: tuple[Knob, ...]
    choices: tuple[Choice, ...]
    fixed: dict[str, float]
    lti: bool = False

    @property
    def class_name(self) -> str:
        """Live's class name of the device, from tables.json."""
        return CLASS_NAMES[self.name]

    @property
    def table(self) -> tuple[Parameter, ...]:
        """Every parameter of the device in Live's order, from tables.json."""
        return TABLES[self.name]


def _read_tables() -> tuple[dict[str, str], dict[str, tuple[Parameter, ...]]]:
    data = json.loads(
        resources.files("unmixer_core.schema").joinpath("tables.json").read_text(encoding="utf-8")
    )
    classes = {name: device["class_name"] for name, device in data.items()}
    return classes, {
        name: tuple(Parameter(*row) for row in device["parameters"])
        for name, device in data.items()
    }


CLASS_NAMES, TABLES = _read_tables()
PERCENT = Linear(100.0)
BIPOLAR_PERCENT = Linear(200.0, -100.0)
CUTOFF = Exponential(20.0, 20480.0)
ATTACK = Power(20.0, 4.0)
DECAY = Power(19.9985, 4.0, 0.0015)
EQ_FREQUENCY = Exponential(10.0, 22000.0)


def _knob(
    key: str,
    name: str,
    unit: str,
    law: Law,
    raw_range: tuple[float, float],
    default: float = 0.5,
    *,
    integer: bool = False,
    when: tuple[Condition, ...] = (),
    modulated_by: tuple[str, ...] = (),
) -> Knob:
    return Knob(
        key,
        name,
        unit,
        law,
        *raw_range,
        default,
        Address("parameter", name),
        integer,
        when,
        modulated_by,
    )


def _amount(key: str, source: str, target: str, when: tuple[Condition, ...] = ()) -> Knob:
    name = f"{source} → {target}"
    return Knob(
        key, name, "%", PERCENT, -1.0, 1.0, 0.5, Address("modulation", target, source), when=when
    )


def _choice(
    key: str,
    name: str,
    items: tuple[str, ...],
    raws: tuple[float, ...] | None = None,
    default: int = 0,
    *,
    kind: str = "parameter",
    when: tuple[Condition, ...] = (),
) -> Choice:
    raws = raws or tuple(float(i) for i in range(len(items)))
    return Choice(
        key,
        name,
        items,
        raws,
        default,
        Address("property" if kind == "property" else "parameter", name),
        when,
    )


OFF_ON = ("Off", "On")
OSC_2 = (Condition("osc_2_on", (1,)),)
SUB = (Condition("sub_on", (1,)),)
FILTER = (Condition("filter_1_on", (1,)),)
UNISON = (Condition("unison_mode", (1,)),)
ENV_2 = ("env_2_to_filter_1_freq", "env_2_to_osc_1_pos")
LFO_1 = ("lfo_1_to_filter_1_freq", "lfo_1_to_osc_1_pos")

WAVETABLE = Device(
    key="wavetable",
    name="Wavetable",
    knobs=(
        _knob("osc_1_pos", "Osc 1 Pos", "%", PERCENT, (0.0, 1.0), 0.0),
        _knob(
            "osc_1_effect_1",
            "Osc 1 Effect 1",
            "%",
            BIPOLAR_PERCENT,
            (0.0, 1.0),
            when=(Condition("osc_1_effect_mode", (3,)),),
        ),
        _knob(
            "osc_1_effect_2",
            "Osc 1 Effect 2",
            "%",
            PERCENT,
            (0.0, 1.0),
            0.0,
            when=(Condition("osc_1_effect_mode", (1, 2)),),
        ),
        _knob(
            "osc_2_transp", "Osc 2 Transp", "st", Linear(), (-12.0, 12.0), integer=True, when=OSC_2
        ),
        _knob("osc_2_detune", "Osc 2 Detune", "ct", Linear(100.0, -50.0), (0.2, 0.8), when=OSC_2),
        _knob("osc_2_pos", "Osc 2 Pos", "%", PERCENT, (0.0, 1.0), 0.0, when=OSC_2),
        _knob("osc_2_gain", "Osc 2 Gain", "dB", Amplitude(), (0.1, 1.0), 1.0, when=OSC_2),
        _knob("sub_tone", "Sub Tone", "%", PERCENT, (0.0, 1.0), 0.0, when=SUB),
        _knob("sub_gain", "Sub Gain", "dB", Amplitude(), (0.1, 1.0), when=SUB),
        _knob("filter_1_freq", "Filter 1 Freq", "Hz", CUTOFF, (0.25, 1.0), 1.0, when=FILTER),
        _knob("filter_1_res", "Filter 1 Res", "%", Linear(125.0), (0.0, 0.8), 0.0, when=FILTER),
        _knob("filter_1_drive", "Filter 1 Drive", "dB", Linear(24.0), (0.0, 1.0), 0.0, when=FILTER),
        _knob("amp_attack", "Amp Attack", "s", ATTACK, (0.08, 0.45), 0.0),
        _knob("amp_decay", "Amp Decay", "s", DECAY, (0.22, 0.56)),
        _knob("amp_sustain", "Amp Sustain", "x", Power(1.0, 2.0), (0.0, 1.0), 0.7),
        _knob("amp_release", "Amp Release", "s", DECAY, (0.15, 0.5)),
        _knob("env_2_attack", "Env 2 Attack", "s", ATTACK, (0.08, 0.45), 0.0, modulated_by=ENV_2),
        _knob("env_2_decay", "Env 2 Decay", "s", DECAY, (0.22, 0.56), modulated_by=ENV_2),
        _knob("env_2_sustain", "Env 2 Sustain", "%", PERCENT, (0.0, 1.0), modulated_by=ENV_2),
        _amount("env_2_to_filter_1_freq", "Env 2", "Filter 1 Freq", FILTER),
        _amount("env_2_to_osc_1_pos", "Env 2", "Osc 1 Pos"),
        _knob(
            "lfo_1_rate",
            "LFO 1 Rate",
            "Hz",
            Power(29.99, 3.0, 0.01),
            (0.2, 0.75),
            modulated_by=LFO_1,
        ),
        _amount("lfo_1_to_filter_1_freq", "LFO 1", "Filter 1 Freq", FILTER),
        _amount("lfo_1_to_osc_1_pos", "LFO 1", "Osc 1 Pos"),
        _knob("unison_amount", "Unison Amount", "%", PERCENT, (0.0, 1.0), 0.3, when=UNISON),
    ),
    choices=(
        _choice("osc_1_wavetable", "oscillator_1_wavetable_index", WAVETABLES, kind="property"),
        _choice(
            "osc_1_effect_mode",
            "oscillator_1_effect_mode",
            ("None", "FM", "Classic", "Modern"),
            kind="property",
        ),
        _choice("osc_2_on", "Osc 2 On", OFF_ON),
        _choice(
            "osc_2_wavetable",
            "oscillator_2_wavetable_index",
            WAVETABLES,
            kind="property",
            when=OSC_2,
        ),
        _choice("sub_on", "Sub On", OFF_ON),
        _choice("filter_1_on", "Filter 1 On", OFF_ON, default=1),
        _choice(
            "filter_1_type",
            "Filter 1 Type",
            ("Lowpass", "Highpass", "Bandpass", "Notch"),
            when=FILTER,
        ),
        _choice(
            "filter_1_slope",
            "Filter 1 Slope",
            ("12 dB", "24 dB"),
            when=(*FILTER, Condition("filter_1_type", (0, 1, 2))),
        ),
        _choice("unison_mode", "unison_mode", ("None", "Classic"), kind="property"),
    ),
    fixed={
        "Osc 1 On": 1.0,
        "Osc 1 Gain": 1.0,
        "Filter 1 LP/HP": 1.0,
        "Filter 1 BP/NO/Morph": 1.0,
        "LFO 1 Retrigger": 1.0,
        "LFO 1 Amount": 1.0,
        "Filter 2 On": 0.0,
        "Volume": 0.8413951,
    },
)

AUTO_FILTER = Device(
    key="auto_filter",
    name="Auto Filter",
    knobs=(
        _knob("frequency", "Frequency", "Hz", MidiPitch(), (45.0, 130.0), 1.0),
        _knob("resonance", "Resonance", "%", PERCENT, (0.0, 1.0), 0.1),
        _knob("drive", "Drive", "dB", Linear(), (0.0, 24.0), 0.0),
    ),
    choices=(_choice("filter_type", "Filter Type", ("Lowpass", "Highpass", "Bandpass", "Notch")),),
    fixed={
        "Filter Circuit - LP/HP": 1.0,
        "Filter Circuit - BP/NO/Morph": 1.0,
        "Slope": 1.0,
        "Env. Modulation": 0.0,
        "LFO Amount": 0.0,
    },
)

SATURATOR = Device(
    key="saturator",
    name="Saturator",
    knobs=(
        _knob("drive", "Drive", "dB", Linear(72.0, -36.0), (0.5, 0.9166667), 0.3),
        _knob("dry_wet", "Dry/Wet", "%", PERCENT, (0.3, 1.0), 1.0),
    ),
    choices=(
        _choice(
            "type",
            "Type",
            ("Analog Clip", "Hard Curve", "Sinoid Fold", "Digital Clip"),
            (0.0, 4.0, 5.0, 6.0),
        ),
    ),
    fixed={"Color On": 0.0, "Post Clip Mode": 0.0, "Output": 1.0},
)

COMPRESSOR = Device(
    key="compressor",
    name="Compressor",
    knobs=(
        _knob("threshold", "Threshold", "dB", Linear(40.0, -34.0), (0.4, 0.85), 1.0),
        _knob("ratio", "Ratio", ":1", Ratio(), (0.35, 0.95), 0.65),
        _knob("attack", "Attack", "ms", Exponential(0.01, 1000.0), (0.2, 0.776), 0.33),
        _knob("release", "Release", "ms", Power(2999.0, 2.505, 1.0), (0.1, 0.5), 0.15),
        _knob("output_gain", "Output Gain", "dB", Linear(), (0.0, 12.0), 0.0),
        _knob("dry_wet", "Dry/Wet", "%", PERCENT, (0.3, 1.0), 1.0),
    ),
    choices=(),
    fixed={"Makeup": 0.0, "Auto Release On/Off": 0.0, "Model": 0.0, "Knee": 0.0},
)

SHELF = (Condition("low_type", (1,)),)
EQ_EIGHT = Device(
    key="eq_eight",
    name="EQ Eight",
    knobs=(
        _knob("low_freq", "1 Frequency A", "Hz", EQ_FREQUENCY, (0.21, 0.5), 0.4),
        _knob("low_gain", "1 Gain A", "dB", Linear(), (-15.0, 15.0), when=SHELF),
        _knob("mid_freq", "4 Frequency A", "Hz", EQ_FREQUENCY, (0.39, 0.81)),
        _knob("mid_gain", "4 Gain A", "dB", Linear(), (-15.0, 15.0)),
        _knob("mid_q", "4 Resonance A", "Q", Exponential(0.1, 18.0), (0.31, 0.75), 0.3),
        _knob("high_freq", "8 Frequency A", "Hz", EQ_FREQUENCY, (0.69, 0.92)),
        _knob("high_gain", "8 Gain A", "dB", Linear(), (-15.0, 15.0)),
    ),
    choices=(
        _choice("low_type", "1 Filter Type A", ("12 dB Highpass", "Low Shelf"), (1.0, 2.0), 1),
    ),
    fixed={
        "1 Filter On A": 1.0,
        "4 Filter On A": 1.0,
        "4 Filter Type A": 3.0,
        "8 Filter On A": 1.0,
        "8 Filter Type A": 5.0,
        "2 Filter On A": 0.0,
        "3 Filter On A": 0.0,
        "5 Filter On A": 0.0,
        "6 Filter On A": 0.0,
        "7 Filter On A": 0.0,
        "Adaptive Q": 0.0,
        "Scale": 1.0,
        "Output Gain": 0.0,
    },
    lti=True,
)

CHORUS_ENSEMBLE = Device(
    key="chorus_ensemble",
    name="Chorus-Ensemble",
    knobs=(
        _knob("rate", "Rate", "Hz", Exponential(0.1, 15.0), (0.0, 0.8), 0.5),
        _knob("amount", "Amount", "%", PERCENT, (0.1, 1.0)),
        _knob("feedback", "Feedback", "%", Linear(99.0), (0.0, 0.8), 0.0),
        _knob("dry_wet", "Dry/Wet", "%", PERCENT, (0.2, 0.8)),
    ),
    choices=(),
    fixed={"Mode": 0.0},
)

PHASER_FLANGER = Device(
    key="phaser_flanger",
    name="Phaser-Flanger",
    knobs=(
        _knob("mod_freq", "Mod Freq", "Hz", Exponential(0.01, 40.0), (0.3, 0.72)),
        _knob("amount", "Amount", "%", PERCENT, (0.1, 1.0), 0.8),
        _knob(
            "center_freq",
            "Center Freq",
            "Hz",
            Exponential(70.0, 18500.0),
            (0.2, 0.8),
            when=(Condition("mode", (0,)),),
        ),
        _knob(
            "flange_time",
            "Flange Time",
            "ms",
            Exponential(0.1, 20.0),
            (0.2, 0.85),
            when=(Condition("mode", (1,)),),
        ),
        _knob("feedback", "Feedback", "%", Linear(99.0), (0.0, 0.9), 0.3),
        _knob("dry_wet", "Dry/Wet", "%", PERCENT, (0.3, 1.0)),
    ),
    choices=(_choice("mode", "Mode", ("Phaser", "Flanger")),),
    fixed={"Mod Sync": 0.0, "Mod Wave": 0.0, "Env Enabled": 0.0, "Lfo Blend": 0.0},
)

DELAY = Device(
    key="delay",
    name="Delay",
    knobs=(
        _knob("l_time", "L Time", "s", Power(4.999, 5.0, 0.001), (0.4, 0.66)),
        _knob("feedback", "Feedback", "%", Linear(95.0), (0.0, 0.9)),
        _knob("filter_freq", "Filter Freq", "Hz", Exponential(50.0, 18000.0), (0.4, 0.9)),
        _knob("filter_width", "Filter Width", "oct", Linear(8.5, 0.5), (0.1, 1.0), 0.8),
        _knob("dry_wet", "Dry/Wet", "%", PERCENT, (0.15, 0.7)),
    ),
    choices=(_choice("ping_pong", "Ping Pong", OFF_ON),),
    fixed={
        "Link": 1.0,
        "L Sync": 0.0,
        "R Sync": 0.0,
        "Filter On": 1.0,
        "Dly < Mod": 0.0,
        "Filter < Mod": 0.0,
    },
    lti=True,
)

REVERB = Device(
    key="reverb",
    name="Reverb",
    knobs=(
        _knob("predelay", "Predelay", "ms", Exponential(0.5, 250.0), (0.0, 0.8)),
        _knob("decay_time", "Decay Time", "s", Exponential(0.2, 60.0), (0.1, 0.65)),
        _knob("room_size", "Room Size", "", Exponential(0.22, 500.0), (0.2, 0.9)),
        _knob(
            "hi_filter_freq", "HiFilter Freq", "Hz", Exponential(20.0, 16000.0), (0.65, 0.97), 0.7
        ),
        _knob("dry_wet", "Dry/Wet", "%", PERCENT, (0.15, 0.7)),
    ),
    choices=(),
    fixed={
        "HiFilter On": 1.0,
        "HiFilter Type": 1.0,
        "LowShelf On": 0.0,
        "Chorus On": 0.0,
        "ER Spin On": 0.0,
    },
    lti=True,
)

EFFECTS = (
    AUTO_FILTER,
    SATURATOR,
    COMPRESSOR,
    EQ_EIGHT,
    CHORUS_ENSEMBLE,
    PHASER_FLANGER,
    DELAY,
    REVERB,
)
