"""The embedded host's sound: bit-equal for equal patches, every learned control audible, physics
in Live's units.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import vita

from unmixer_core.errors import HostError
from unmixer_core.headless.sound import worker
from unmixer_core.headless.sound.device_state import DeviceState, Raw
from unmixer_core.headless.sound.job import SoundJob
from unmixer_core.headless.sound.vital import EFFECT_SLOTS, chain_code
from unmixer_core.headless.sound.voice import preset, voice
from unmixer_core.schema.knob import Choice, Condition, Knob
from unmixer_core.schema.rack import RACK

RATE = 44100
AUDIBLE = 10 ** (-40 / 20)  # of the louder sound's RMS


def state_for(
    device_index: int, conditions: tuple[Condition, ...], modulated_by: tuple[str, ...] = ()
) -> list[DeviceState]:
    """A chain in which a control of that device is heard.

    Its conditions hold and its modulation is turned up.
    """
    states = []
    for index in sorted({0, device_index}):
        device = RACK.devices[index]
        state = DeviceState(device.name, dict(device.fixed))
        for knob in device.knobs:
            write(state, knob, knob.to_raw(knob.default))
        if index == 0:
            state.values |= {
                "Osc 1 Pos": 0.6,
                "Filter 1 Freq": 0.6,
                "Filter 1 On": 1.0,
                "Amp Decay": 0.3,
                "Amp Sustain": 0.8,
                "Osc 2 Pos": 0.6,
            }
        if index == device_index:
            for condition in conditions:
                choice = next(c for c in device.choices if c.key == condition.key)
                write(state, choice, choice.raws[condition.items[0]])
            for key in modulated_by:
                knob = next(k for k in device.knobs if k.key == key)
                write(state, knob, knob.to_raw(0.8))
            for name in ("Dry/Wet",):
                if any(k.name == name for k in device.knobs):
                    state.values[name] = 0.6
        states.append(state)
    if device_index and RACK.devices[device_index].key == "eq_eight":
        states[1].values |= {"1 Gain A": 10.0, "4 Gain A": 10.0, "8 Gain A": 10.0}
    if device_index and RACK.devices[device_index].key == "compressor":
        states[1].values |= {"Threshold": 0.45}
        states[0].values |= {"Amp Sustain": 1.0, "Filter 1 On": 0.0, "Volume": 1.0}
    if device_index and RACK.devices[device_index].key == "delay":
        states[1].values |= {"L Time": 0.4}
    return states


def write(state: DeviceState, control: Knob | Choice, raw: float) -> None:
    address = control.address
    if address.kind == "property":
        state.properties[address.name] = int(raw)
    elif address.kind == "modulation":
        state.modulation.setdefault(address.name, {})[address.source] = float(raw)
    else:
        state.values[address.name] = float(raw)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """RMS of the difference over the RMS of the louder."""
    return float(
        np.sqrt(np.mean((a - b) ** 2)) / max(np.sqrt(np.mean(a**2)), np.sqrt(np.mean(b**2)), 1e-9)
    )


def magnitude(audio: np.ndarray, hz: float, start_s: float = 0.06, length_s: float = 0.15) -> float:
    part = audio[0, int(start_s * RATE) : int((start_s + length_s) * RATE)]
    window = np.hanning(len(part))
    return (
        2
        * abs(np.sum(part * window * np.exp(-2j * np.pi * hz * np.arange(len(part)) / RATE)))
        / window.sum()
    )


def decibels(ratio: float) -> float:
    return 20 * np.log10(ratio)


@pytest.mark.parametrize("ref", RACK.knobs, ids=lambda ref: ref.id)
def test_every_learned_knob_is_heard_over_its_whole_range(ref, sound) -> None:
    sounds = []
    for unit in (0.0, 0.5, 1.0):
        states = state_for(ref.device, ref.knob.when, ref.knob.modulated_by)
        write(states[-1], ref.knob, ref.knob.to_raw(unit))
        sounds.append(sound(states))
    for a, b in itertools.pairwise(sounds):
        assert difference(a, b) > AUDIBLE


@pytest.mark.parametrize("ref", RACK.choices, ids=lambda ref: ref.id)
def test_every_item_of_a_choice_sounds_different(ref, sound) -> None:
    sounds = []
    for raw in ref.choice.raws:
        states = state_for(ref.device, ref.choice.when)
        states[0].values |= {"Osc 1 Effect 1": 0.8, "Osc 1 Effect 2": 0.7}
        states[-1].values |= {"Drive": 0.75} if states[-1].name == "Saturator" else {}
        write(states[-1], ref.choice, raw)
        sounds.append(sound(states, duration_s=0.2))
    for a, b in itertools.combinations(sounds, 2):
        assert difference(a, b) > AUDIBLE


def test_equal_patches_are_bit_equal_whatever_was_rendered_before(sound, synth) -> None:
    chain = [
        synth({"unison_mode": 1}, Osc_2_On=1.0, Sub_On=1.0),
        *(DeviceState(name) for name in RACK.effect_names),
    ]
    first = sound(chain)
    sound([synth(Osc_1_Pos=0.1), DeviceState("Reverb"), DeviceState("Delay")], note=40)
    assert np.array_equal(first, sound(chain))


def test_fork_of_a_pristine_synth_equals_a_new_one(sound, synth) -> None:
    chain = [synth(Osc_2_On=1.0), DeviceState("Saturator", {"Drive": 0.7}), DeviceState("Reverb")]
    job = SoundJob([], 57, 1.0, 0.0, 0.22, 0.3, 120.0, RATE, "")
    assert np.array_equal(
        sound(chain), worker.render(job, vita.Synth(), preset(chain, for_render=True))
    )


def test_sample_rate_is_the_asked_one_and_changes_no_pitch(sound, synth) -> None:
    audio = sound([synth(Osc_1_Pos=0.0)], note=69, sample_rate=48000)
    assert audio.shape[1] == 14400
    crossings = np.flatnonzero((audio[0, 2000:8000:] < 0) & (audio[0, 2001:8001] >= 0))
    assert 48000 / np.diff(crossings).mean() == pytest.approx(440.0, rel=1e-3)


def test_full_preset_of_a_static_patch_sounds_like_its_render(sound, synth) -> None:
    devices = [synth(Osc_1_Pos=0.37, Osc_2_On=1.0, Osc_2_Pos=0.5, Sub_On=1.0, Sub_Tone=0.3)]
    rendered, whole = sound(devices), vita.Synth()
    assert whole.load_json(preset(devices))
    worker._settle(whole, 57)
    opened = whole.render(57, 1.0, 0.22, 0.32)[:, : rendered.shape[1]]
    assert difference(rendered, opened) < 2e-3


def test_order_of_effects_is_heard(sound, synth) -> None:
    saturator, delay = (
        DeviceState("Saturator", {"Drive": 0.75}),
        DeviceState("Delay", {"L Sync": 0.0, "L Time": 0.35, "Dry/Wet": 0.5}),
    )
    compressor = DeviceState("Compressor", {"Threshold": 0.45})
    a = sound([synth(), saturator, delay, compressor])
    b = sound([synth(), delay, saturator, compressor])
    c = sound([synth(), saturator, compressor, delay])
    assert min(difference(a, b), difference(a, c), difference(b, c)) > 0.1


def test_linear_effects_commute(sound, synth) -> None:
    eq = DeviceState("EQ Eight", {"4 Gain A": 12.0, "4 Filter On A": 1.0})
    delay = DeviceState("Delay", {"L Sync": 0.0, "L Time": 0.35, "Link": 1.0})
    quiet = synth(Volume=0.3)
    assert difference(sound([quiet, eq, delay]), sound([quiet, delay, eq])) < 1e-3


def test_chain_code_numbers_every_order_once() -> None:
    codes = {
        chain_code([EFFECT_SLOTS[i] for i in order])
        for order in itertools.permutations(range(9), 3)
    }
    assert len(codes) == 9 * 8 * 7
    assert chain_code([]) == 0.0
    assert chain_code(EFFECT_SLOTS[::-1]) == 362879.0


def test_device_that_is_off_is_silent(sound, synth) -> None:
    off = DeviceState("Saturator", {"Device On": 0.0, "Drive": 1.0})
    assert np.array_equal(sound([synth()]), sound([synth(), off]))


def test_no_instrument_is_silence(sound) -> None:
    assert not sound([DeviceState("Reverb")]).any()


def test_note_is_in_tune_and_starts_when_asked(sound, synth) -> None:
    late = sound([synth(Osc_1_Pos=0.0)], note=69, start_s=0.1)
    assert not late[:, : int(0.1 * RATE)].any()
    assert magnitude(late, 440.0, 0.15, 0.15) > 100 * magnitude(late, 480.0, 0.15, 0.15)


def test_levels_are_those_live_shows(sound, synth) -> None:
    full = magnitude(sound([synth(Osc_1_Pos=0.0)], note=69), 440.0)
    assert decibels(full) == pytest.approx(decibels(0.7**2), abs=0.1)  # Volume: v² of full scale
    half = magnitude(sound([synth(Osc_1_Pos=0.0, Osc_1_Gain=0.5)], note=69), 440.0)
    assert decibels(half / full) == pytest.approx(-6.02, abs=0.1)
    sustained = magnitude(
        sound([synth(Osc_1_Pos=0.0, Amp_Decay=0.1, Amp_Sustain=0.707946)], note=69), 440.0
    )
    assert decibels(sustained / full) == pytest.approx(-6.0, abs=0.1)


def test_attack_takes_its_time(sound, synth) -> None:
    """The envelope is linear, its square is the amplitude.

    A quarter of the level at half the attack.
    """
    raw = (0.2 / 20.0) ** 0.25
    audio = sound([synth(Osc_1_Pos=0.0, Amp_Attack=raw)], note=81, gate_s=0.3)
    level = [magnitude(audio, 880.0, at - 0.01, 0.02) for at in (0.1, 0.25)]
    assert level[0] / level[1] == pytest.approx(0.25, rel=0.06)


@pytest.mark.parametrize("raw", [0.5, 0.7])
def test_lowpass_falls_at_its_cutoff(raw, sound, synth) -> None:
    """Two equal poles (−6 dB at the cutoff).

    The 24 dB slope puts a pair of Q 1 (0 dB there) before them.
    """
    cutoff_hz = 20.0 * 1024.0**raw
    note = round(
        69 + 12 * np.log2(cutoff_hz / 4 / 440.0)
    )  # the fourth harmonic lies near the cutoff
    base_hz = 440.0 * 2 ** ((note - 69) / 12)
    quiet = {"Filter_1_Type": 0.0, "Volume": 0.2, "Osc_1_Gain": 0.05}
    opened = sound([synth(Filter_1_On=0.0, **quiet)], note=note)
    for slope, per_octave in ((0.0, 12.0), (1.0, 24.0)):
        filtered = sound(
            [synth(Filter_1_On=1.0, Filter_1_Freq=raw, Filter_1_Slope=slope, **quiet)], note=note
        )
        gains = [
            decibels(magnitude(filtered, k * base_hz) / magnitude(opened, k * base_hz))
            for k in (4, 16)
        ]
        ratio = 4 * base_hz / cutoff_hz
        exact = -20 * np.log10(1 + ratio**2) - slope * 10 * np.log10((1 - ratio**2) ** 2 + ratio**2)
        assert gains[0] == pytest.approx(exact, abs=1.5)
        assert gains[1] - gains[0] < -1.5 * per_octave


def test_filter_types_pass_what_they_say(sound, synth) -> None:
    opened = sound([synth()], note=57)
    gains = []
    for kind in range(4):
        filtered = sound(
            [
                synth(
                    Filter_1_On=1.0, Filter_1_Type=float(kind), Filter_1_Freq=0.575, Osc_1_Gain=0.1
                )
            ],
            note=57,
        )
        gains.append(
            [
                decibels(magnitude(filtered, 220.0 * k) / magnitude(opened, 220.0 * k) / 0.1)
                for k in (1, 5, 20)
            ]
        )
    low, high, band, notch = gains  # cutoff 1077 Hz, the fifth harmonic is 1100 Hz
    assert low[0] > -3 > low[2] and high[2] > -3 > high[0]
    assert band[1] > band[0] and band[1] > band[2]
    assert notch[1] < -15 and notch[0] > -5 and notch[2] > -5


def test_delay_repeats_after_its_time(sound, synth) -> None:
    time_s = 0.2
    delay = DeviceState(
        "Delay",
        {
            "L Sync": 0.0,
            "Link": 1.0,
            "L Time": ((time_s - 0.001) / 4.999) ** 0.2,
            "Dry/Wet": 0.5,
            "Filter On": 0.0,
        },
    )
    audio = sound([synth(Amp_Release=0.1), delay], note=69, gate_s=0.02, duration_s=0.45)[0]
    envelope = np.convolve(np.abs(audio), np.ones(256) / 256, "same")
    dry, wet = (
        envelope[: int(0.1 * RATE)].argmax(),
        envelope[int(0.15 * RATE) : int(0.3 * RATE)].argmax() + int(0.15 * RATE),
    )
    assert (wet - dry) / RATE == pytest.approx(time_s, abs=0.005)


def test_reverb_decays_in_its_time(sound, synth) -> None:
    decay = np.log(1.0 / 0.2) / np.log(300)  # one second
    values = {
        "Decay Time": decay,
        "Room Size": 0.5,
        "Dry/Wet": 1.0,
        "HiFilter On": 0.0,
        "LowShelf On": 0.0,
    }
    audio = sound(
        [synth(Amp_Release=0.05), DeviceState("Reverb", values)], gate_s=0.05, duration_s=1.2
    )
    level = [
        np.sqrt(np.mean(audio[:, int(at * RATE) : int((at + 0.3) * RATE)] ** 2))
        for at in (0.3, 0.9)
    ]
    assert decibels(level[0] / level[1]) / 0.6 == pytest.approx(60.0, rel=0.2)  # dB a second


def test_equaliser_bell_has_its_gain_at_its_centre(sound, synth) -> None:
    raw = np.log(880.0 / 10.0) / np.log(2200.0)
    flat = sound([synth(Volume=0.3)], note=69)
    bell = {"4 Filter On A": 1.0, "4 Frequency A": raw, "4 Gain A": 9.0, "1 Filter On A": 0.0}
    boosted = sound([synth(Volume=0.3), DeviceState("EQ Eight", bell)], note=69)
    assert decibels(magnitude(boosted, 880.0) / magnitude(flat, 880.0)) == pytest.approx(
        9.0, abs=0.3
    )


def test_saturator_is_a_tanh_of_the_driven_signal(sound, synth) -> None:
    dry = sound([synth(Osc_1_Pos=0.0)], note=45)
    wet = sound(
        [synth(Osc_1_Pos=0.0), DeviceState("Saturator", {"Drive": 0.5 + 12.0 / 72.0})], note=45
    )
    assert difference(np.tanh(dry * 10 ** (12.0 / 20)), wet) < 0.002


def test_compressor_follows_its_threshold_and_ratio(sound, synth) -> None:
    """A sine well above the threshold: the squared signal's envelope rules.

    Twice the level gains 6 dB / ratio.
    """

    def level(gain: float) -> float:
        squeeze = DeviceState(
            "Compressor",
            {"Threshold": 0.4, "Ratio": 0.75, "Attack": 0.4, "Release": 0.16, "Dry/Wet": 1.0},
        )
        return magnitude(
            sound([synth(Osc_1_Pos=0.0, Osc_1_Gain=gain, Volume=1.0), squeeze], note=69), 440.0
        )

    assert decibels(level(1.0) / level(0.5)) == pytest.approx(6.02 / 4.0, abs=0.3)


def test_unknown_and_doubled_devices_are_refused_by_name(synth) -> None:
    with pytest.raises(HostError, match="Utility"):
        voice([synth(), DeviceState("Utility")])
    with pytest.raises(HostError, match="only one Reverb"):
        voice([synth(), DeviceState("Reverb"), DeviceState("Reverb")])


def test_preset_is_what_vital_calls_one(synth) -> None:
    data = json.loads(preset([synth(Sub_On=1.0), DeviceState("Delay")]))
    assert {"settings", "synth_version", "preset_name"} <= set(data)
    assert [t["name"] for t in data["settings"]["wavetables"]] == ["Basic Shapes", "Init", "Sub"]
    assert data["settings"]["delay_on"] == 1.0


def test_defaults_come_from_the_parameter_table() -> None:
    assert Raw(DeviceState("Wavetable"))["Amp Decay"] == pytest.approx(0.415927, abs=1e-6)


def test_classic_sync_begins_neutral_and_raises_the_ratio_by_three_octaves(sound, synth):
    plain = sound([synth(properties={"oscillator_1_effect_mode": 0})])
    off = sound([synth(properties={"oscillator_1_effect_mode": 2}, **{"Osc_1_Effect_2": 0.0})])
    full = sound([synth(properties={"oscillator_1_effect_mode": 2}, **{"Osc_1_Effect_2": 1.0})])
    assert difference(plain, off) < AUDIBLE
    assert magnitude(full, 220.0) < 0.05 * magnitude(full, 8 * 220.0)  # a sawtooth three octaves up
