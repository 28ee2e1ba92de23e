"""The synthesizer: two wavetable oscillators and a sub, a moving filter, an amplitude envelope.

It plays what the schema calls Wavetable, one note per patch. With integer choices, modules that are
off are skipped. With weights everything is computed, so that every weight receives its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from unmixer_core.dsp import envelopes, oscillators
from unmixer_core.dsp.fft import (
    circle,
    filter_frames,
    filter_on_circle,
    frame_frequencies_hz,
    frame_times_s,
)
from unmixer_core.dsp.levels import decibels_to_gain, note_to_hz
from unmixer_core.proxy.controls import (
    AUDIBLE_WEIGHT,
    Controls,
    KnobCalibration,
    soft_unit,
    sounding,
)
from unmixer_core.proxy.parts import Positive, ResidualFilter
from unmixer_core.proxy.resonator import Resonator, settling_octaves
from unmixer_core.schema.devices import WAVETABLE, WAVETABLES

#: Single cycles of a table, and harmonics of each.
FRAMES = 32
HARMONICS = 400
#: Gain of the outer and the inner voice of each side, relative to a single voice.
UNISON_GAINS = (0.738, 0.669)
#: Detuning of the inner voices, relative to that of the outer ones.
UNISON_INNER = 0.1873
#: Items of the choice "osc_1_effect_mode"; 0 is none.
FM = 1
CLASSIC = 2
MODERN = 3
#: Hop of the position's modulators, shorter than any audible step.
CONTROL_HOP_S = 0.0015
FILTER_HOP_S = 0.0116
#: Range of hard sync at full amount.
SYNC_OCTAVES = 3.0
#: The host's position follows its modulators this much later.
POSITION_LAG_S = 0.0075
#: The host's FM modulator starts late (seconds) and is a little flat (seconds a second).
FM_LAG_S = 5e-5
FM_DRIFT = 7e-5
#: Live shows a resonance of 0 to 125 %.
RESONANCE_RANGE = 1.25
#: Limits of the moving cutoff.
CUTOFF_RANGE_HZ = (10.0, 24000.0)
#: Release of Env 2 in the host, which the schema leaves at its default.
ENV_2_RELEASE_S = 0.6

PerPatch = Float[Tensor, "batch"]
Stereo = Float[Tensor, "batch 2 time"]
Tables = Float[Tensor, "batch frames samples"]
Position = Float[Tensor, "batch 1 time"]
Part = Callable[..., Tensor]


def generic_spectra() -> Complex[Tensor, "tables frames harmonics"]:
    """Tables that are used before any calibration: a sine that opens to a sawtooth."""
    number = torch.arange(1, HARMONICS + 1, dtype=torch.float32)
    brightness = torch.linspace(0.0, 1.0, FRAMES)[:, None]
    magnitude = number**-1.0 * torch.exp(-(number - 1.0) * (1.0 - brightness) ** 3)
    table = torch.polar(magnitude, torch.full_like(magnitude, -0.5 * math.pi))
    return table.expand(len(WAVETABLES), -1, -1).clone()


class WavetableVoice(nn.Module):
    """Wavetable, note by note. φ: the tables' spectra, and a few levels, curves and laws."""

    #: Names of the parameters that are measured on the host and that calibration does not fit.
    MEASURED: ClassVar[tuple[str, ...]] = ("spectra",)

    def __init__(self) -> None:
        super().__init__()
        self.knobs = KnobCalibration(WAVETABLE)
        self.spectra = nn.Parameter(torch.view_as_real(generic_spectra()))
        self.level = Positive(0.708)
        self.sub_level = Positive(1.0)
        self.osc_2_level = Positive(1.0)
        self.fm_depth_cycles = Positive(1.5)
        self.fm_lag_cycles = nn.Parameter(torch.tensor(0.0127))
        self.unison_semitones = Positive(0.5)
        self.unison_gain = nn.Parameter(torch.tensor(UNISON_GAINS))
        self.resonator = Resonator()
        self.octaves_env = Positive(10.0)
        self.octaves_lfo = Positive(5.0)
        self.position_env = Positive(1.0)
        self.position_lfo = Positive(0.5)
        self.attack_power = nn.Parameter(torch.tensor(0.0))
        self.decay_power = nn.Parameter(torch.tensor(-2.0))
        self.release_power = nn.Parameter(torch.tensor(-2.0))
        self.residual = ResidualFilter()

    def forward(
        self,
        controls: Controls,
        note: PerPatch,
        gate_s: PerPatch,
        *,
        n_samples: int,
        sample_rate: float,
    ) -> Float[Tensor, "batch 2 n_samples"]:
        """Dry sound of the whole batch. note: MIDI. gate_s: seconds. sample_rate: Hz."""
        frequency_hz = note_to_hz(note)
        mixed = self._oscillators(controls, frequency_hz, gate_s, n_samples, sample_rate)
        mixed = self._filtered(controls, mixed, gate_s, sample_rate)
        amplitude = self._amplitude(controls, gate_s, n_samples, sample_rate)
        shaped = mixed * amplitude[:, None]
        if self.residual.idle:
            return shaped
        on = circle(n_samples, pad_samples=256, like=mixed)
        return filter_on_circle(shaped, self.residual(on.frequencies_hz(sample_rate)), on)

    # Modulators

    def _amplitude(
        self, controls: Controls, gate_s: PerPatch, n_samples: int, sample_rate: float
    ) -> Float[Tensor, "batch n_samples"]:
        time_s = torch.arange(n_samples, device=gate_s.device, dtype=gate_s.dtype) / sample_rate
        envelope = envelopes.adsr(
            time_s,
            controls.physical("amp_attack"),
            controls.physical("amp_decay"),
            # The envelope is squared below; the small term keeps the root's gradient finite at 0.
            (controls.physical("amp_sustain") + 1e-6).sqrt(),
            controls.physical("amp_release"),
            gate_s,
            attack_power=self.attack_power,
            decay_power=self.decay_power,
            release_power=self.release_power,
        )
        return self.level() * envelope.square()

    def _modulators(
        self, controls: Controls, time_s: Float[Tensor, "time"], gate_s: PerPatch
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Env 2 (0..1) and LFO 1 (−1..1)."""
        envelope = envelopes.adsr(
            time_s,
            controls.physical("env_2_attack"),
            controls.physical("env_2_decay"),
            controls.share("env_2_sustain"),
            torch.full_like(gate_s, ENV_2_RELEASE_S),
            gate_s,
            attack_power=self.attack_power,
            decay_power=self.decay_power,
            release_power=self.release_power,
        )
        return envelope, envelopes.lfo_sine(time_s, controls.physical("lfo_1_rate"))

    # Oscillators

    def _oscillators(
        self,
        controls: Controls,
        frequency_hz: PerPatch,
        gate_s: PerPatch,
        n_samples: int,
        sample_rate: float,
    ) -> Float[Tensor, "batch 2 n_samples"]:
        position = self._position(controls, gate_s, n_samples, sample_rate)
        total = self._oscillator_1(controls, frequency_hz, position, sample_rate)
        for gate, part in (("osc_2_on", self._oscillator_2), ("sub_on", self._sub)):
            weight = controls.weights(gate)[:, 1]
            rows = sounding(weight)
            if len(rows):
                sound = part(controls.select(rows), frequency_hz[rows], n_samples, sample_rate)
                weighted = weight[rows, None, None] * sound
                total = total.index_add(0, rows, weighted.expand(-1, 2, -1))
        return total

    def _position(
        self, controls: Controls, gate_s: PerPatch, n_samples: int, sample_rate: float
    ) -> Float[Tensor, "batch 1 n_samples"]:
        """Oscillator 1's position in its table, 0..1, as Env 2 and LFO 1 move it."""
        frames = max(2, int(n_samples / sample_rate / CONTROL_HOP_S))
        time_s = torch.linspace(
            0.0, n_samples / sample_rate, frames, device=gate_s.device, dtype=gate_s.dtype
        )
        earlier_s = (time_s - POSITION_LAG_S).clamp_min(0.0)
        envelope, lfo = self._modulators(controls, earlier_s, gate_s)
        moved = (
            controls.share("osc_1_pos")[:, None]
            + self.position_env() * controls.share("env_2_to_osc_1_pos")[:, None] * envelope
            + self.position_lfo() * controls.share("lfo_1_to_osc_1_pos")[:, None] * lfo
        )
        full = nn.functional.interpolate(
            moved[:, None], n_samples, mode="linear", align_corners=True
        )
        return soft_unit(full)

    def _tables(
        self,
        weights: Float[Tensor, "batch tables"],
        frequency_hz: PerPatch,
        sample_rate: float,
    ) -> Tables:
        chosen = torch.einsum("bw,wfkc->bfkc", weights, self.spectra)
        return oscillators.band_limited_tables(
            torch.view_as_complex(chosen.contiguous()), frequency_hz, sample_rate=sample_rate
        )

    def _oscillator_1(
        self,
        controls: Controls,
        frequency_hz: PerPatch,
        position: Position,
        sample_rate: float,
    ) -> Stereo:
        tables = self._tables(controls.weights("osc_1_wavetable"), frequency_hz, sample_rate)
        sound = frequency_hz.new_zeros(len(frequency_hz), 2, position.shape[-1])
        unison = controls.weights("unison_mode")[:, 1]
        many = sounding(unison)
        if unison.requires_grad:
            one = many[:0]
        else:
            one = (unison.detach() <= AUDIBLE_WEIGHT).nonzero()[:, 0]
        parts: tuple[tuple[Tensor, Part], ...] = ((one, self._single), (many, self._unison))
        for rows, part in parts:
            if len(rows):
                waves = part(
                    controls.select(rows),
                    tables[rows],
                    frequency_hz[rows],
                    position[rows],
                    sample_rate,
                )
                sound = sound.index_add(0, rows, waves)
        return sound

    def _single(
        self,
        controls: Controls,
        tables: Tables,
        frequency_hz: PerPatch,
        position: Position,
        sample_rate: float,
    ) -> Stereo:
        wave = self._voices(controls, tables, frequency_hz[:, None], position, sample_rate)
        return wave.expand(-1, 2, -1)

    def _unison(
        self,
        controls: Controls,
        tables: Tables,
        frequency_hz: PerPatch,
        position: Position,
        sample_rate: float,
    ) -> Stereo:
        """Two voices a side, mirrored.

        The outer voice is tuned up on the left and down on the right, the inner one reversely.
        """
        weight = controls.weights("unison_mode")[:, 1]
        detune = self.unison_semitones() * weight * controls.share("unison_amount")
        spread = frequency_hz.new_tensor([1.0, -UNISON_INNER, -1.0, UNISON_INNER])
        tuned_hz = oscillators.detuned_hz(frequency_hz[:, None], detune[:, None] * spread)
        waves = self._voices(controls, tables, tuned_hz, position, sample_rate).unflatten(1, (2, 2))
        gains = 0.5 + weight[:, None] * (self.unison_gain - 0.5)  # [batch, outer and inner]
        return torch.einsum("bv,bcvt->bct", gains, waves)

    def _voices(
        self,
        controls: Controls,
        tables: Tables,
        tuned_hz: Float[Tensor, "batch voices"],
        position: Position,
        sample_rate: float,
    ) -> Float[Tensor, "batch voices time"]:
        """Oscillator 1, once for every frequency of tuned_hz."""
        phase = oscillators.phase_cycles(
            tuned_hz, n_samples=position.shape[-1], sample_rate=sample_rate
        )
        time_s = torch.arange(phase.shape[-1], device=phase.device, dtype=phase.dtype) / sample_rate
        lag = self.fm_lag_cycles + tuned_hz[..., None] * (FM_LAG_S + FM_DRIFT * time_s)
        return oscillators.wavetable_oscillator(
            tables, position, self._warped(controls, phase, lag)
        )

    def _warped(
        self,
        controls: Controls,
        phase: Float[Tensor, "batch voices time"],
        lag: Float[Tensor, "batch voices time"],
    ) -> Float[Tensor, "batch voices time"]:
        """Phase after the effect mode, in cycles.

        The modes' changes are mixed by their weights, so that the table is read only once.
        lag: delay in cycles of the FM modulator, a sine at the note's pitch, behind the carrier.
        """
        mode = controls.weights("osc_1_effect_mode")
        amount = controls.share("osc_1_effect_2")[:, None, None]
        # The host warps around the middle of the cycle.
        centred = phase - 0.5 - (phase.detach() - 0.5).floor()
        warps = {
            FM: lambda: self.fm_depth_cycles() * amount.square() * oscillators.sine(phase - lag),
            CLASSIC: lambda: (
                oscillators.sync_phase(centred, torch.exp2(SYNC_OCTAVES * amount)) - centred
            ),
            MODERN: lambda: (
                oscillators.bend_phase(centred, controls.share("osc_1_effect_1")[:, None, None])
                - centred
            ),
        }
        warped = phase
        for item, change in warps.items():
            weight = mode[:, item]
            if len(sounding(weight)):
                warped = warped + weight[:, None, None] * change()
        return warped

    def _oscillator_2(
        self, controls: Controls, frequency_hz: PerPatch, n_samples: int, sample_rate: float
    ) -> Float[Tensor, "batch 1 n_samples"]:
        semitones = controls.physical("osc_2_transp") + controls.physical("osc_2_detune") / 100.0
        tuned_hz = oscillators.detuned_hz(frequency_hz, semitones)
        tables = self._tables(controls.weights("osc_2_wavetable"), tuned_hz, sample_rate)
        phase = oscillators.phase_cycles(
            tuned_hz[:, None], n_samples=n_samples, sample_rate=sample_rate
        )
        position = soft_unit(controls.share("osc_2_pos"))[:, None, None]
        gain = self.osc_2_level() * decibels_to_gain(controls.physical("osc_2_gain"))
        return gain[:, None, None] * oscillators.wavetable_oscillator(tables, position, phase)

    def _sub(
        self, controls: Controls, frequency_hz: PerPatch, n_samples: int, sample_rate: float
    ) -> Float[Tensor, "batch 1 n_samples"]:
        octave_down = 0.5 * frequency_hz
        phase = oscillators.phase_cycles(octave_down, n_samples=n_samples, sample_rate=sample_rate)
        gain = self.sub_level() * decibels_to_gain(controls.physical("sub_gain"))
        tone = soft_unit(controls.share("sub_tone"))
        sound = oscillators.sub_oscillator(phase, tone, octave_down, sample_rate=sample_rate)
        return (gain[:, None] * sound)[:, None]

    # Filter

    def _filtered(
        self, controls: Controls, audio: Stereo, gate_s: PerPatch, sample_rate: float
    ) -> Stereo:
        weight = controls.weights("filter_1_on")[:, 1]
        rows = sounding(weight)
        if not len(rows):
            return audio
        source = audio[rows]
        wet = self._filter(controls.select(rows), source, gate_s[rows], sample_rate)
        return audio.index_add(0, rows, weight[rows, None, None] * (wet - source))

    def _filter(
        self, controls: Controls, audio: Stereo, gate_s: PerPatch, sample_rate: float
    ) -> Stereo:
        hop = 1 << round(math.log2(FILTER_HOP_S * sample_rate))
        resonance = controls.share("filter_1_res") / RESONANCE_RANGE
        drive_db = controls.physical("filter_1_drive")
        kind = controls.weights("filter_1_type")
        driven, slope = self.resonator.drive(audio, resonance, drive_db, kind)
        response = self._response(controls, audio, gate_s, slope, hop, sample_rate)
        return filter_frames(driven, response[:, None], hop_samples=hop)

    def _response(
        self,
        controls: Controls,
        audio: Stereo,
        gate_s: PerPatch,
        slope: PerPatch,
        hop: int,
        sample_rate: float,
    ) -> Complex[Tensor, "batch frames bins"]:
        """Response of the filter as Env 2 and LFO 1 move it."""
        time_s = frame_times_s(audio.shape[-1], hop, sample_rate, audio)
        envelope, lfo = self._modulators(controls, time_s, gate_s)
        octaves = (
            self.octaves_env() * controls.share("env_2_to_filter_1_freq")[:, None] * envelope
            + self.octaves_lfo() * controls.share("lfo_1_to_filter_1_freq")[:, None] * lfo
        )
        # Evaluated twice on purpose: one shared node would add gradients in another order.
        glide_hz = controls.physical("filter_1_freq")
        octaves = octaves + settling_octaves(time_s, glide_hz, self.resonator.start_hz())
        set_hz = controls.physical("filter_1_freq")[:, None]
        cutoff_hz = (set_hz * torch.exp2(octaves)).clamp(*CUTOFF_RANGE_HZ)
        return self.resonator.response(
            frame_frequencies_hz(hop, sample_rate, audio),
            cutoff_hz,
            controls.share("filter_1_res") / RESONANCE_RANGE,
            controls.physical("filter_1_drive"),
            slope,
            controls.weights("filter_1_type"),
            controls.weights("filter_1_slope")[:, 1],
        )
