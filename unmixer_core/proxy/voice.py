"""The synthesizer: two wavetable oscillators and a sub, a moving filter with drive, an amplitude
envelope.

What the schema calls Wavetable, played for one note. Everything that does not sound is skipped when
choices are given as integers; given as weights, all of it is computed so that every weight gets its
gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unmixer_core.dsp import envelopes, oscillators
from unmixer_core.dsp.fft import circle, filter_frames, filter_on_circle, frame_times_s
from unmixer_core.proxy.controls import HEARD, Controls, KnobCalibration, soft_unit, sounding
from unmixer_core.proxy.parts import Positive, ResidualFilter, decibels_to_gain
from unmixer_core.proxy.resonator import Resonator, settling_octaves
from unmixer_core.schema.devices import WAVETABLE, WAVETABLES

FRAMES, HARMONICS = 32, 400
UNISON_GAINS = (
    0.738,
    0.669,
)  # of the outer and the inner voice of each side, beside a single voice
UNISON_INNER = 0.1873  # detune of the inner voices beside the outer ones
FM, CLASSIC, MODERN = 1, 2, 3
CONTROL_HOP_S = 0.0015
FILTER_HOP_S = 0.0116
SYNC_OCTAVES = 3.0
POSITION_LAG_S = 0.0075  # the host's position follows its modulators this much later
FM_LAG_S, FM_DRIFT = 5e-5, 7e-5  # the host's FM modulator starts late and is a little flat
RESONANCE_RANGE = 1.25  # Live shows 0..125 %


def note_to_hz(note: Tensor) -> Tensor:
    """MIDI note (may be fractional) → Hz, A4 = 440."""
    return 440.0 * torch.exp((note - 69.0) * (math.log(2.0) / 12.0))


def generic_spectra() -> Tensor:
    """Tables before any calibration.

    A sine that opens to a sawtooth, complex [tables, frames, harmonics].
    """
    number = torch.arange(1, HARMONICS + 1, dtype=torch.float32)
    brightness = torch.linspace(0.0, 1.0, FRAMES)[:, None]
    magnitude = number**-1.0 * torch.exp(-(number - 1.0) * (1.0 - brightness) ** 3)
    return (
        torch.polar(magnitude, torch.full_like(magnitude, -0.5 * math.pi))
        .expand(len(WAVETABLES), -1, -1)
        .clone()
    )


class WavetableVoice(nn.Module):
    """Wavetable, note by note. φ: the tables' spectra and a handful of levels, curves and laws."""

    def __init__(self) -> None:
        super().__init__()
        self.knobs = KnobCalibration(WAVETABLE)
        self.spectra = nn.Parameter(torch.view_as_real(generic_spectra()))
        self.level, self.sub_level, self.osc_2_level = Positive(0.708), Positive(1.0), Positive(1.0)
        self.fm_depth_cycles = Positive(1.5)
        self.fm_lag_cycles = nn.Parameter(torch.tensor(0.0127))
        self.unison_semitones = Positive(0.5)
        self.unison_gain = nn.Parameter(torch.tensor(UNISON_GAINS))
        self.resonator = Resonator()
        self.octaves_env, self.octaves_lfo = Positive(10.0), Positive(5.0)
        self.position_env, self.position_lfo = Positive(1.0), Positive(0.5)
        self.attack_power = nn.Parameter(torch.tensor(0.0))
        self.decay_power, self.release_power = (
            nn.Parameter(torch.tensor(-2.0)),
            nn.Parameter(torch.tensor(-2.0)),
        )
        self.residual = ResidualFilter()

    def forward(
        self,
        controls: Controls,
        note: Tensor,
        gate_s: Tensor,
        *,
        n_samples: int,
        sample_rate: float,
    ) -> Tensor:
        """Controls of the whole batch, note [batch] (MIDI), gate_s [batch] → audio [batch, 2,
        n_samples].
        """
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
        self, controls: Controls, gate_s: Tensor, n_samples: int, sample_rate: float
    ) -> Tensor:
        time_s = torch.arange(n_samples, device=gate_s.device, dtype=gate_s.dtype) / sample_rate
        envelope = envelopes.adsr(
            time_s,
            controls.physical("amp_attack"),
            controls.physical("amp_decay"),
            (controls.physical("amp_sustain") + 1e-6).sqrt(),
            controls.physical("amp_release"),
            gate_s,
            attack_power=self.attack_power,
            decay_power=self.decay_power,
            release_power=self.release_power,
        )
        return self.level() * envelope.square()

    def _modulators(
        self, controls: Controls, time_s: Tensor, gate_s: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Env 2 (0..1) and LFO 1 (−1..1), both [batch, time].

        Env 2's release is the host's default, 600 ms.
        """
        envelope = envelopes.adsr(
            time_s,
            controls.physical("env_2_attack"),
            controls.physical("env_2_decay"),
            controls.share("env_2_sustain"),
            torch.full_like(gate_s, 0.6),
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
        frequency_hz: Tensor,
        gate_s: Tensor,
        n_samples: int,
        sample_rate: float,
    ) -> Tensor:
        position = self._position(controls, gate_s, n_samples, sample_rate)
        first = self._oscillator_1(controls, frequency_hz, position, sample_rate)
        total = first
        for gate, part in (("osc_2_on", self._oscillator_2), ("sub_on", self._sub)):
            weight = controls.weights(gate)[:, 1]
            rows = sounding(weight)
            if len(rows):
                sound = part(controls.select(rows), frequency_hz[rows], n_samples, sample_rate)
                total = total.index_add(
                    0, rows, (weight[rows, None, None] * sound).expand(-1, 2, -1)
                )
        return total

    def _position(
        self, controls: Controls, gate_s: Tensor, n_samples: int, sample_rate: float
    ) -> Tensor:
        frames = max(2, int(n_samples / sample_rate / CONTROL_HOP_S))
        time_s = torch.linspace(
            0.0, n_samples / sample_rate, frames, device=gate_s.device, dtype=gate_s.dtype
        )
        envelope, lfo = self._modulators(controls, (time_s - POSITION_LAG_S).clamp_min(0.0), gate_s)
        moved = (
            controls.share("osc_1_pos")[:, None]
            + self.position_env() * controls.share("env_2_to_osc_1_pos")[:, None] * envelope
            + self.position_lfo() * controls.share("lfo_1_to_osc_1_pos")[:, None] * lfo
        )
        full = nn.functional.interpolate(
            moved[:, None], n_samples, mode="linear", align_corners=True
        )
        return soft_unit(full)

    def _tables(self, weights: Tensor, frequency_hz: Tensor, sample_rate: float) -> Tensor:
        chosen = torch.einsum("bw,wfkc->bfkc", weights, self.spectra)
        return oscillators.band_limited_tables(
            torch.view_as_complex(chosen.contiguous()), frequency_hz, sample_rate=sample_rate
        )

    def _oscillator_1(
        self, controls: Controls, frequency_hz: Tensor, position: Tensor, sample_rate: float
    ) -> Tensor:
        tables = self._tables(controls.weights("osc_1_wavetable"), frequency_hz, sample_rate)
        sound = frequency_hz.new_zeros(len(frequency_hz), 2, position.shape[-1])
        unison = controls.weights("unison_mode")[:, 1]
        many = sounding(unison)
        one = (unison.detach() <= HEARD).nonzero()[:, 0] if not unison.requires_grad else many[:0]
        for rows, part in ((one, self._single), (many, self._unison)):
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
        tables: Tensor,
        frequency_hz: Tensor,
        position: Tensor,
        sample_rate: float,
    ) -> Tensor:
        return self._voices(controls, tables, frequency_hz[:, None], position, sample_rate).expand(
            -1, 2, -1
        )

    def _unison(
        self,
        controls: Controls,
        tables: Tensor,
        frequency_hz: Tensor,
        position: Tensor,
        sample_rate: float,
    ) -> Tensor:
        """Two voices a side, mirrored.

        The outer up on the left and down on the right, the inner the other way round.
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
        tables: Tensor,
        tuned_hz: Tensor,
        position: Tensor,
        sample_rate: float,
    ) -> Tensor:
        """Oscillator 1 at tuned_hz [batch, voices] → [batch, voices, time]."""
        phase = oscillators.phase_cycles(
            tuned_hz, n_samples=position.shape[-1], sample_rate=sample_rate
        )
        time_s = torch.arange(phase.shape[-1], device=phase.device, dtype=phase.dtype) / sample_rate
        lag = self.fm_lag_cycles + tuned_hz[..., None] * (FM_LAG_S + FM_DRIFT * time_s)
        return oscillators.wavetable_oscillator(
            tables, position, self._warped(controls, phase, lag)
        )

    def _warped(self, controls: Controls, phase: Tensor, lag: Tensor) -> Tensor:
        """The phase after the effect mode.

        Mixed over modes by their weights, so that one read serves them all.

        lag: how far (in cycles) the FM modulator, a sine at the note's pitch, runs behind the
        carrier.
        """
        mode = controls.weights("osc_1_effect_mode")
        amount = controls.share("osc_1_effect_2")[:, None, None]
        centred = (
            phase - 0.5 - (phase.detach() - 0.5).floor()
        )  # the host warps around the cycle's middle
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
        self, controls: Controls, frequency_hz: Tensor, n_samples: int, sample_rate: float
    ) -> Tensor:
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
        self, controls: Controls, frequency_hz: Tensor, n_samples: int, sample_rate: float
    ) -> Tensor:
        octave_down = 0.5 * frequency_hz
        phase = oscillators.phase_cycles(octave_down, n_samples=n_samples, sample_rate=sample_rate)
        gain = self.sub_level() * decibels_to_gain(controls.physical("sub_gain"))
        tone = soft_unit(controls.share("sub_tone"))
        sound = oscillators.sub_oscillator(phase, tone, octave_down, sample_rate=sample_rate)
        return (gain[:, None] * sound)[:, None]

    # Filter

    def _filtered(
        self, controls: Controls, audio: Tensor, gate_s: Tensor, sample_rate: float
    ) -> Tensor:
        weight = controls.weights("filter_1_on")[:, 1]
        rows = sounding(weight)
        if not len(rows):
            return audio
        source = audio[rows]
        wet = self._filter(controls.select(rows), source, gate_s[rows], sample_rate)
        return audio.index_add(0, rows, weight[rows, None, None] * (wet - source))

    def _filter(
        self, controls: Controls, audio: Tensor, gate_s: Tensor, sample_rate: float
    ) -> Tensor:
        hop = 1 << round(math.log2(FILTER_HOP_S * sample_rate))
        resonance = controls.share("filter_1_res") / RESONANCE_RANGE
        drive_db, kind = controls.physical("filter_1_drive"), controls.weights("filter_1_type")
        driven, slope = self.resonator.drive(audio, resonance, drive_db, kind)
        response = self._response(controls, audio, gate_s, slope, hop, sample_rate)
        return filter_frames(driven, response[:, None], hop_samples=hop)

    def _response(
        self,
        controls: Controls,
        audio: Tensor,
        gate_s: Tensor,
        slope: Tensor,
        hop: int,
        sample_rate: float,
    ) -> Tensor:
        """Complex [batch, frames, bins] of the filter as Env 2 and LFO 1 move it."""
        time_s = frame_times_s(audio.shape[-1], hop, sample_rate, audio)
        envelope, lfo = self._modulators(controls, time_s, gate_s)
        octaves = (
            self.octaves_env() * controls.share("env_2_to_filter_1_freq")[:, None] * envelope
            + self.octaves_lfo() * controls.share("lfo_1_to_filter_1_freq")[:, None] * lfo
        )
        octaves = octaves + settling_octaves(
            time_s, controls.physical("filter_1_freq"), self.resonator.start_hz()
        )
        cutoff_hz = (controls.physical("filter_1_freq")[:, None] * torch.exp2(octaves)).clamp(
            10.0, 24000.0
        )
        return self.resonator.response(
            torch.arange(hop + 1, device=audio.device, dtype=audio.dtype)
            * (0.5 * sample_rate / hop),
            cutoff_hz,
            controls.share("filter_1_res") / RESONANCE_RANGE,
            controls.physical("filter_1_drive"),
            slope,
            controls.weights("filter_1_type"),
            controls.weights("filter_1_slope")[:, 1],
        )
