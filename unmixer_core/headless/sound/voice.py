"""What one Live track sounds like in Vital.

Devices by name → Vital's controls, and → a `.vital` preset that opens there.

Laws were found by experiment with vita 0.1.0 (tests/headless/sound/test_voice.py repeats the ones
that matter). Vital keeps frequencies as log2 Hz (octaves) or MIDI notes, envelope times as fourth
roots, levels as square roots.

| Live parameter | Vital control | law |
|---|---|---|
| Osc n On, Gain, Pan | osc_n_on, _level, _pan | level = √gain (amplitude = level²); pan −1..1 |
| Osc n Transp, Detune | osc_n_transpose, _tune | semitones; ±½ semitone |
| Osc n Pos | osc_n_wave_frame | 0..124: four linear steps between neighbours of the 32 frames |
| FM, Effect 2 | osc_n_distortion (FM ← Sample) | modulated by a sine at the note's pitch, 9.42·v² rad |
| Classic, Effect 2 | osc_n_distortion (Sync) | hard sync, ratio 2^(3v) |
| Modern, Effect 1 | osc_n_distortion (Bend) | ½ is neutral |
| Unison Amount | osc_n_unison_detune | outermost voices ±50·v cents; voices = unison_voice_count |
| Sub On, Tone, Gain, Transpose | osc_3_* | sine → triangle → square; octaves 0, −1, −2 |
| Filter 1 Type, Slope | filter_1_style, _blend (Analog) | blend 0 LP, 1 BP, 2 HP; notch has one slope only |
| Filter 1 Freq, Res, Drive | filter_1_cutoff, … | MIDI note; r = Res/125 %, Q ≈ 1/(2 − 2.15·√r); dB |
| Amp Attack, Decay, Release | env_1_* | seconds^¼; amplitude is the *square* of this envelope |
| Amp Sustain, Volume | env_1_sustain, voice_amplitude | equal: both sides square them |
| Env 2, 3; LFO 1, 2 | env_2, 3; lfo_1, 2 | seconds^¼; log2 Hz, a sine from its rising zero at note-on |
| X → Filter 1 Freq, Osc n Pos | modulations | 1 = 120 semitones, all frames; Env 0..1, LFO −½..½ |
| Auto Filter | filter_fx (Analog) | as Filter 1; Frequency is already a MIDI note |
| Saturator Drive | distortion_drive | dB, at most 30 |
| Saturator Type | distortion_type | Analog Clip tanh, Hard Curve linear fold, Sinoid Fold, Digital Clip hard clip |
| Compressor Threshold, Ratio | compressor_band_upper_* | dB; 1 − 1/ratio, which is Live's own raw value |
| Compressor Attack, Release | compressor_attack, … | 1.4 ms·e^(8a−4), 28 ms·e^(8r−4), of the squared signal |
| EQ Eight bands 1, 4, 8 | eq_low, eq_band, eq_high | MIDI note; dB; Q = 0.5 + 15.5·p³ where p = control² |
| Chorus-Ensemble | chorus (one pair of taps) | log2 Hz; depth = amount (30 ms·(1 ± ½) at 1) |
| Phaser-Flanger | phaser or flanger | log2 Hz; ±24·amount semitones round Center; flanger note of 1/time |
| Delay | delay | log2 of 1/time; filter ± Width/2 octaves; one time when linked |
| Reverb | reverb | predelay s; log2 of T60 / loop stretch; size = raw Room Size; high shelf per pass |
| Dry/Wet | *_dry_wet, *_mix | sin, cos of 90°·w in chorus, delay, reverb, flanger (w halved); else linear |
| order of devices | effect_chain_order | Lehmer code of the nine slots, absent ones last |

Not mapped (documented, silent): Filter 2, parameters of a device that the schema neither learns nor
fixes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unmixer_core.errors import HostError
from unmixer_core.headless.sound import wavetables
from unmixer_core.headless.sound.device_state import (
    Controls,
    DeviceState,
    Raw,
    clip,
    octaves,
    root4,
    to_note,
)
from unmixer_core.headless.sound.vital import chain_code, fm_sample, lfo_shape, skeleton, table
from unmixer_core.schema.devices import EFFECTS as SCHEMA_EFFECTS
from unmixer_core.schema.devices import WAVETABLES
from unmixer_core.system.json_types import Json

LAST_FRAME, SUB_LAST_FRAME = 124, 32
FILTER_SEMITONES = 120.0
FM_AT_FULL = 0.5  # Vital's amount at Effect 2 = 100 %
SYNC_NEUTRAL, SYNC_AT_FULL = 0.5, 0.375  # Vital's ratio is 2^(8 (amount - 0.5)); ours 2^(3 v)
UNISON_DETUNE_AT_FULL = 5.0  # √25 % of ±2 semitones
ANALOG_STYLES = {0: None, 1: None, 2: None, 3: 2.0, 4: None}  # style by Filter Type; None: by slope
BLENDS = {0: 0.0, 1: 2.0, 2: 1.0, 3: 1.0}
SATURATOR_TYPES = {
    0: 0,
    1: 0,
    2: 0,
    3: 2,
    4: 2,
    5: 3,
    6: 1,
    7: 3,
}  # by Live's Type, in the manual's order
SIXTEENTHS = (1, 2, 3, 4, 5, 6, 8, 16)
DESTINATIONS = {
    "Filter 1 Freq": ("filter_1_cutoff", FILTER_SEMITONES / 128.0),
    "Osc 1 Pos": ("osc_1_wave_frame", LAST_FRAME / 256.0),
    "Osc 2 Pos": ("osc_2_wave_frame", LAST_FRAME / 256.0),
}
SOURCES = {
    "Env 2": ("env_2", 0),
    "Env 3": ("env_3", 0),
    "LFO 1": ("lfo_1", 1),
    "LFO 2": ("lfo_2", 1),
}  # (source, bipolar)


@dataclass
class VitalVoice:
    """A track in Vital's terms; a modulation is (source, destination, amount, bipolar)."""

    controls: Controls = field(default_factory=dict)
    modulations: list[tuple[str, str, float, int]] = field(default_factory=list)
    tables: list[str | None] = field(default_factory=lambda: [None, None, None])
    lfos: list[int] = field(default_factory=lambda: [0, 0])


def voice(devices: Sequence[DeviceState], tempo_bpm: float = 120.0) -> VitalVoice:
    """Vital's settings for the devices of one track, in their order.

    Devices whose Device On is 0 are left out.

    Raises HostError for a device that Vital has no counterpart of, for two of a kind, and for an
    effect before the instrument.
    """
    on = [Raw(device) for device in devices if device.values.get("Device On", 1.0) > 0.5]
    result = VitalVoice(dict(FIXED, beats_per_minute=tempo_bpm / 60.0))
    if on and on[0].name == "Wavetable":
        _wavetable(on.pop(0), result)
    else:
        result.controls.update(osc_1_on=0.0)
    slots = []
    for raw in on:
        if raw.name not in EFFECTS:
            raise HostError(
                f"The embedded host cannot sound {raw.name} here: it has Wavetable first, then "
                f"{', '.join(EFFECTS)}."
            )
        slot, controls = EFFECTS[raw.name](raw, tempo_bpm)
        if slot in slots:
            raise HostError(f"The embedded host can sound only one {raw.name} on a track.")
        slots.append(slot)
        result.controls.update({f"{slot}_on": 1.0}, **controls)
    result.controls["effect_chain_order"] = chain_code(slots)
    return result


def check_effects() -> None:
    """Check that every effect of the schema has a mapping to Vital.

    Raises HostError that names the first effect without one.
    """
    for device in SCHEMA_EFFECTS:
        if device.name not in EFFECTS:
            raise HostError(
                f'the headless voice has no mapping for the effect "{device.name}"; add one to '
                f"EFFECTS in unmixer_core/headless/sound/voice.py."
            )


def preset(
    devices: Sequence[DeviceState], tempo_bpm: float = 120.0, *, for_render: bool = False
) -> str:
    """The track as the text of a `.vital` preset, which Vital opens and which the embedded host
    renders.

    `for_render` leaves of every wavetable whose position does not move only the frame that sounds
    (the rest of the table changes it by −60 dB at most): loading a whole table costs about 16 ms.
    """
    state = voice(devices, tempo_bpm)
    base = skeleton()
    settings = dict(base["settings"])
    tables = list(settings["wavetables"])
    for i, name in enumerate(state.tables):
        if name is not None:
            tables[i] = _table(state, i, name, for_render)
    settings |= {key: float(value) for key, value in state.controls.items()}
    modulations = list(settings["modulations"])
    for i, (source, destination, amount, bipolar) in enumerate(state.modulations):
        modulations[i] = {"source": source, "destination": destination}
        settings |= {
            f"modulation_{i + 1}_amount": amount,
            f"modulation_{i + 1}_bipolar": float(bipolar),
        }
    lfos = [lfo_shape(shape) for shape in state.lfos] + settings["lfos"][2:]
    settings |= {
        "wavetables": tables,
        "modulations": modulations,
        "lfos": lfos,
        "sample": fm_sample(),
    }
    return json.dumps(base | {"settings": settings, "preset_name": "Un-Mixer"})


def _table(state: VitalVoice, i: int, name: str, for_render: bool) -> Json:
    """The i-th oscillator's table.

    A static one is cut to its frame, and the frame control set to it.
    """
    control, last = f"osc_{i + 1}_wave_frame", SUB_LAST_FRAME if name == "Sub" else LAST_FRAME
    moves = any(destination == control for _, destination, _, _ in state.modulations)
    if moves or not for_render:
        return table(name, wavetables.encoded(name), last)
    frame = wavetables.encoded_at(name, state.controls[control] / last)
    state.controls[control] = 0.0
    return table(name, (frame,), 0)


FIXED: Mapping[str, float] = {
    "volume": 6400.0,  # (0 dB + 80)²: effects and output see the level that Live's devices would
    "compressor_enabled_bands": 3.0,  # single band
    "compressor_band_lower_ratio": 0.0,  # no upward compression
    "chorus_voices": 1.0,
    **{f"{slot}_sync": 0.0 for slot in ("chorus", "phaser", "flanger", "delay", "delay_aux")},
    "reverb_chorus_amount": 0.0,
    "reverb_pre_low_cutoff": 0.0,
    "reverb_pre_high_cutoff": 128.0,
    **{f"sample_{key}": 0.0 for key in ("on", "level", "random_phase")},
    **{f"sample_{key}": 1.0 for key in ("loop", "keytrack")},
    **{f"osc_{n}_{key}": 0.0 for n in (1, 2, 3) for key in ("random_phase", "on")},
    **{f"lfo_{n}_{key}": 0.0 for n in (1, 2) for key in ("sync", "sync_type", "smooth_mode")},
}


def _wavetable(raw: Raw, result: VitalVoice) -> None:
    controls = result.controls
    controls |= {"voice_amplitude": raw["Volume"], "voice_transpose": round(raw["Transpose"])}
    for n in (1, 2):
        controls |= _oscillator(raw, n)
        if raw[f"Osc {n} On"] > 0.5:
            index = int(raw.property(f"oscillator_{n}_wavetable_index"))
            result.tables[n - 1] = WAVETABLES[index]
            controls["sample_on"] = max(
                controls["sample_on"], float(raw.property(f"oscillator_{n}_effect_mode") == 1)
            )
    if raw["Sub On"] > 0.5:
        result.tables[2] = "Sub"
        controls |= {
            "osc_3_on": 1.0,
            "osc_3_wave_frame": round(SUB_LAST_FRAME * raw["Sub Tone"]),
            "osc_3_level": math.sqrt(raw["Sub Gain"]),
        }
        controls["osc_3_transpose"] = -12.0 * round(raw["Sub Transpose"])
    controls |= _filter(
        raw, "filter_1", "Filter 1 Type", "Filter 1 Slope", "Filter 1 Morph", raw["Filter 1 Res"]
    )
    controls |= {
        "filter_1_on": raw["Filter 1 On"],
        "filter_1_cutoff": to_note(raw.physical("Filter 1 Freq")),
    }
    controls |= {"filter_1_drive": raw.physical("Filter 1 Drive")}
    destination = 0.0 if raw["Filter 1 On"] > 0.5 else 3.0  # Filter 1, else straight to the effects
    controls |= {f"osc_{n}_destination": destination for n in (1, 2, 3)}
    controls |= _envelope(raw, 1, "Amp") | _envelope(raw, 2, "Env 2") | _envelope(raw, 3, "Env 3")
    result.lfos = [round(raw[f"LFO {n} Shape"]) for n in (1, 2)]
    for n in (1, 2):
        controls |= {f"lfo_{n}_frequency": octaves(0.01 + 29.99 * raw[f"LFO {n} Rate"] ** 3)}
        controls |= {f"lfo_{n}_phase": (0.25 + raw[f"LFO {n} Phase Offset"]) % 1.0}
    result.modulations = _modulations(raw)


def _oscillator(raw: Raw, n: int) -> Controls:
    osc, live = f"osc_{n}", f"Osc {n}"
    unison = raw.property("unison_mode") > 0
    kind, amount = _distortion(
        int(raw.property(f"oscillator_{n}_effect_mode")),
        raw[f"{live} Effect 1"],
        raw[f"{live} Effect 2"],
    )
    return {
        f"{osc}_on": raw[f"{live} On"],
        f"{osc}_level": math.sqrt(raw[f"{live} Gain"]),
        f"{osc}_pan": 2.0 * raw[f"{live} Pan"] - 1.0,
        f"{osc}_transpose": round(raw[f"{live} Transp"]),
        f"{osc}_tune": raw[f"{live} Detune"] - 0.5,
        f"{osc}_wave_frame": round(LAST_FRAME * raw[f"{live} Pos"]),
        f"{osc}_distortion_type": kind,
        f"{osc}_distortion_amount": amount,
        f"{osc}_unison_voices": float(raw.property("unison_voice_count")) if unison else 1.0,
        f"{osc}_unison_detune": UNISON_DETUNE_AT_FULL * math.sqrt(raw["Unison Amount"]),
    }


def _distortion(mode: int, effect_1: float, effect_2: float) -> tuple[float, float]:
    """Vital's (type, amount) of an oscillator effect mode None, FM, Classic, Modern."""
    return (
        (0.0, 0.5),
        (9.0, FM_AT_FULL * effect_2),
        (1.0, SYNC_NEUTRAL + SYNC_AT_FULL * effect_2),
        (4.0, effect_1),
    )[mode]


def _filter(raw: Raw, prefix: str, kind: str, slope: str, morph: str, resonance: float) -> Controls:
    number = round(raw[kind])
    style = ANALOG_STYLES[number]
    return {
        f"{prefix}_model": 0.0,
        f"{prefix}_style": float(round(raw[slope])) if style is None else style,
        f"{prefix}_blend": BLENDS.get(number, 2.0 * raw[morph]),
        f"{prefix}_resonance": clip(resonance, 0.0, 1.0),
    }


def _envelope(raw: Raw, n: int, live: str) -> Controls:
    """Slopes: 0.5 is linear, 0.75 Live's and Vital's default curve (power −2)."""
    env = f"env_{n}"
    return {
        f"{env}_attack": root4(20.0 * raw[f"{live} Attack"] ** 4),
        f"{env}_decay": root4(0.0015 + 19.9985 * raw[f"{live} Decay"] ** 4),
        f"{env}_release": root4(0.0015 + 19.9985 * raw[f"{live} Release"] ** 4),
        f"{env}_sustain": raw[f"{live} Sustain"],
        f"{env}_attack_power": 8.0 * (raw[f"{live} A Slope"] - 0.5),
        f"{env}_decay_power": -8.0 * (raw[f"{live} D Slope"] - 0.5),
        f"{env}_release_power": -8.0 * (raw[f"{live} R Slope"] - 0.5),
    }


def _modulations(raw: Raw) -> list[tuple[str, str, float, int]]:
    slots = []
    for target, source, amount in raw.modulations():
        (destination, scale), (name, bipolar) = DESTINATIONS[target], SOURCES[source]
        total = (
            amount
            * scale
            * 2.0
            * raw["Global Mod Amount"]
            * (raw[f"{source} Amount"] if bipolar else 1.0)
        )
        if total:
            slots.append((name, destination, clip(total, -1.0, 1.0), bipolar))
    return slots


def _auto_filter(raw: Raw, _: float) -> tuple[str, Controls]:
    controls = _filter(raw, "filter_fx", "Filter Type", "Slope", "Morph", raw["Resonance"] / 1.25)
    return "filter_fx", controls | {
        "filter_fx_cutoff": raw["Frequency"],
        "filter_fx_drive": raw["Drive"],
    }


def _saturator(raw: Raw, _: float) -> tuple[str, Controls]:
    drive_db = clip(raw.physical("Drive"), -30.0, 30.0)
    kind = SATURATOR_TYPES[round(raw["Type"])]
    return "distortion", {
        "distortion_type": kind,
        "distortion_drive": drive_db,
        "distortion_mix": raw["Dry/Wet"],
    }


def _compressor(raw: Raw, _: float) -> tuple[str, Controls]:
    def place(milliseconds: float, center_ms: float) -> float:
        return clip((math.log(milliseconds / center_ms) + 4.0) / 8.0, 0.0, 1.0)

    return "compressor", {
        "compressor_band_upper_threshold": clip(raw.physical("Threshold"), -80.0, 12.0),
        "compressor_band_upper_ratio": raw["Ratio"],
        "compressor_attack": place(raw.physical("Attack"), 1.4),
        "compressor_release": place(raw.physical("Release"), 28.0),
        "compressor_band_gain": clip(raw["Output Gain"], -30.0, 30.0),
        "compressor_mix": raw["Dry/Wet"],
    }


def _eq_eight(raw: Raw, _: float) -> tuple[str, Controls]:
    def band(slot: str, n: int) -> Controls:
        gain_db = raw[f"{n} Gain A"] * raw["Scale"] * (raw[f"{n} Filter On A"] > 0.5)
        hz, q = 10.0 * 2200.0 ** raw[f"{n} Frequency A"], 0.1 * 180.0 ** raw[f"{n} Resonance A"]
        resonance = ((clip(q, 0.5, 16.0) - 0.5) / 15.5) ** (1.0 / 6.0)
        return {
            f"eq_{slot}_cutoff": to_note(hz),
            f"eq_{slot}_gain": clip(gain_db, -15.0, 15.0),
            f"eq_{slot}_resonance": resonance,
        }

    highpass = raw["1 Filter On A"] > 0.5 and round(raw["1 Filter Type A"]) <= 1
    return "eq", band("low", 1) | band("band", 4) | band("high", 8) | {
        "eq_low_mode": float(highpass)
    }


def _chorus(raw: Raw, _: float) -> tuple[str, Controls]:
    return "chorus", {
        "chorus_frequency": clip(octaves(raw.physical("Rate")), -6.0, 3.0),
        "chorus_mod_depth": raw["Amount"],
        "chorus_feedback": clip(raw.physical("Feedback") / 100.0, 0.0, 0.95)
        * (1.0 - 2.0 * raw["FB Inv"]),
        "chorus_dry_wet": raw["Dry/Wet"],
    }


def _phaser_flanger(raw: Raw, _: float) -> tuple[str, Controls]:
    slot, center, depth, wet = (
        "phaser",
        to_note(raw.physical("Center Freq")),
        24.0 * raw["Amount"],
        raw["Dry/Wet"],
    )
    if round(raw["Mode"]) > 0:
        slot, center, depth, wet = (
            "flanger",
            to_note(1000.0 / raw.physical("Flange Time")),
            raw["Amount"],
            0.5 * raw["Dry/Wet"],
        )
    return slot, {
        f"{slot}_frequency": clip(octaves(raw.physical("Mod Freq")), -5.0, 2.0),
        f"{slot}_center": clip(center, 8.0, 136.0),
        f"{slot}_mod_depth": depth,
        f"{slot}_feedback": raw.physical("Feedback") / 100.0,
        f"{slot}_dry_wet": wet,
    }


def _delay(raw: Raw, tempo_bpm: float) -> tuple[str, Controls]:
    def rate(side: str) -> float:
        seconds = 0.001 + 4.999 * raw[f"{side} Time"] ** 5
        if raw[f"{side} Sync"] > 0.5:
            seconds = SIXTEENTHS[round(raw[f"{side} 16th"])] * 15.0 / tempo_bpm
        return clip(-octaves(seconds), -2.0, 9.0)

    linked = raw["Link"] > 0.5
    return "delay", {
        "delay_style": 2.0 if raw["Ping Pong"] > 0.5 else 0.0 if linked else 1.0,
        "delay_frequency": rate("L"),
        "delay_aux_frequency": rate("L" if linked else "R"),
        "delay_feedback": raw.physical("Feedback") / 100.0,
        "delay_filter_cutoff": clip(to_note(raw.physical("Filter Freq")), 8.0, 136.0),
        "delay_filter_spread": raw.physical("Filter Width") / 16.0
        if raw["Filter On"] > 0.5
        else 1.0,
        "delay_dry_wet": raw["Dry/Wet"],
    }


def _reverb(raw: Raw, _: float) -> tuple[str, Controls]:
    shelf_gain = 0.25 if raw["HiFilter Type"] > 0.5 else 0.2 + 0.8 * raw["HiShelf Gain"]
    high_db = clip(20.0 * math.log10(shelf_gain), -6.0, 0.0) if raw["HiFilter On"] > 0.5 else 0.0
    low_db = (
        clip(20.0 * math.log10(0.2 + 0.8 * raw["LowShelf Gain"]), -6.0, 0.0)
        if raw["LowShelf On"] > 0.5
        else 0.0
    )
    return "reverb", {
        "reverb_delay": raw.physical("Predelay") / 1000.0,
        "reverb_decay_time": clip(
            octaves(raw.physical("Decay Time") / _loop_stretch(raw["Room Size"])), -6.0, 6.0
        ),
        "reverb_size": raw["Room Size"],
        "reverb_high_shelf_cutoff": clip(to_note(raw.physical("HiFilter Freq")), 0.0, 128.0),
        "reverb_high_shelf_gain": high_db,
        "reverb_low_shelf_cutoff": to_note(20.0 * 750.0 ** raw["LowShelf Freq"]),
        "reverb_low_shelf_gain": low_db,
        "reverb_dry_wet": raw["Dry/Wet"],
    }


def _loop_stretch(size: float) -> float:
    """A loop of Vital's reverb over its delay line.

    Allpasses of 850 samples, on average, beside 6514·2^(4·size−3).
    """
    return 1.0 + 850.0 / (6514.0 * 2.0 ** (4.0 * size - 3.0))


EFFECTS: dict[str, Callable[[Raw, float], tuple[str, Controls]]] = {
    "Auto Filter": _auto_filter,
    "Saturator": _saturator,
    "Compressor": _compressor,
    "EQ Eight": _eq_eight,
    "Chorus-Ensemble": _chorus,
    "Phaser-Flanger": _phaser_flanger,
    "Delay": _delay,
    "Reverb": _reverb,
}
