"""Make `benchmarks/outside/`: the out-of-domain sounds.

`benchmark_itf` and `python -m benchmarks.unmix.bars` use them.

    apt-get install fluidsynth fluid-soundfont-gm sonic-pi-samples
    pip install pedalboard
    python -m benchmarks.unmix.outside_clips [--soundfont FluidR3_GM.sf2]
        [--samples /usr/share/sonic-pi/samples]

Each clip is a short stereo FLAC of one note, named in clips.csv with its note, gate and origin.
There are three kinds. Instruments: Fluid R3 (MIT), one note of one recorded instrument. Samples:
Sonic Pi's one-shots (CC0), unchanged. Effects: instrument notes through two or three of
pedalboard's effects (Spotify's, none of ours). A drawn effect chain is used only if each effect,
and the order of each pair with a nonlinear effect, changes the sound by at least 1 dB MSS, because
nobody could find an effect that is not audible. Everything is drawn from a seed. The host is not
used.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from unmixer_core import audio
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema.chain import commutes

RATE = 44100
#: Seconds of silence before the note in its file.
LEAD_S = 0.05
#: Longest clip, as long as those of the host.
CLIP_S = 2.0
SEED = 20264
#: The least change of MSS that counts as audible.
AUDIBLE_DB = 1.0
N_EFFECTS_CLIPS = 28
#: -3 dBFS: headroom, so that 16 bits do not clip.
PEAK = 0.708
#: Level between effects: -6 dBFS.
EFFECT_PEAK = 0.5
#: The note begins where the sound is above this share of its peak: -60 dB.
ONSET_SHARE = 1e-3
FADE_S = 0.02
#: MIDI file: 960 ticks a beat, a beat of half a second.
TICKS_PER_BEAT = 960
TICKS_PER_S = 2 * TICKS_PER_BEAT
#: fluidsynth without a shell and without MIDI input, quiet, its own reverb and chorus off, at a
#: gain that does not clip.
FLUIDSYNTH = ("fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", "0.6", "-r", str(RATE))
COLUMNS = ("file", "kind", "note", "gate_s", "chain", "origin", "license")
INSTRUMENTS = (
    (0, "grand piano"),
    (4, "electric piano"),
    (5, "fm piano"),
    (6, "harpsichord"),
    (7, "clavinet"),
    (11, "vibraphone"),
    (12, "marimba"),
    (16, "drawbar organ"),
    (19, "church organ"),
    (21, "accordion"),
    (22, "harmonica"),
    (24, "nylon guitar"),
    (26, "jazz guitar"),
    (27, "clean guitar"),
    (29, "overdriven guitar"),
    (32, "acoustic bass"),
    (33, "fingered bass"),
    (34, "picked bass"),
    (36, "slap bass"),
    (38, "synth bass"),
    (42, "cello"),
    (43, "contrabass"),
    (46, "harp"),
    (48, "strings"),
    (52, "choir"),
    (57, "trombone"),
    (58, "tuba"),
    (60, "french horn"),
    (61, "brass"),
    (66, "tenor saxophone"),
    (70, "bassoon"),
    (71, "clarinet"),
    (73, "flute"),
    (80, "square lead"),
)
SAMPLES = (
    "bass_dnb_f",
    "bass_hit_c",
    "bass_thick_c",
    "bass_trance_c",
    "bass_voxy_c",
    "bass_woodsy_c",
    "elec_bell",
    "elec_ping",
    "elec_twang",
    "glitch_bass_g",
    "perc_bell",
)
Sound = NDArray[np.float32]


@dataclass(frozen=True)
class OutsideClip:
    """One sound [2, time] at RATE and its line in clips.csv.

    note, gate_s: None where the origin does not say.
    """

    name: str
    kind: str
    sound: Sound
    note: int | None
    gate_s: float | None
    chain: tuple[str, ...]
    origin: str
    license: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--soundfont", type=Path, default=Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
    )
    parser.add_argument("--samples", type=Path, default=Path("/usr/share/sonic-pi/samples"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "outside")
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    notes = instruments(options.soundfont, rng)
    clips = [*notes, *one_shots(options.samples), *through_effects(notes, rng)]
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        for clip in clips:
            name = f"{clip.name}.flac"
            write(options.out / name, clip.sound)
            gate = "" if clip.gate_s is None else f"{clip.gate_s:.2f}"
            chain = " > ".join(clip.chain)
            note = clip.note or ""
            lines.writerow([name, clip.kind, note, gate, chain, clip.origin, clip.license])


def write(path: Path, sound: Sound) -> None:
    """Write a sound as 16-bit FLAC: peak at PEAK, LEAD_S of silence before the note."""
    loud = sound * (PEAK / max(float(np.abs(sound).max()), 1e-9))
    padded = np.pad(loud, [(0, 0), (round(LEAD_S * RATE), 0)])
    soundfile.write(path, padded.T, RATE, format="FLAC", subtype="PCM_16")


def instruments(soundfont: Path, rng: np.random.Generator) -> list[OutsideClip]:
    """Draw one note of each instrument, within the notes and gates that the model knows."""
    clips = []
    for program, name in INSTRUMENTS:
        note = int(rng.integers(40, 65))
        gate_s = round(float(rng.uniform(0.3, 1.2)), 2)
        clip = OutsideClip(
            name=f"{name.replace(' ', '-')}-{note}",
            kind="instrument",
            sound=play(soundfont, program, note, gate_s),
            note=note,
            gate_s=gate_s,
            chain=(),
            origin=f"Fluid R3 GM, program {program} ({name})",
            license="MIT",
        )
        clips.append(clip)
    return clips


def play(soundfont: Path, program: int, note: int, gate_s: float) -> Sound:
    """Render one note by fluidsynth, cut to CLIP_S from its onset."""
    with tempfile.TemporaryDirectory() as folder:
        score = Path(folder) / "note.mid"
        out = Path(folder) / "note.wav"
        score.write_bytes(midi_file(program, note, gate_s))
        command = [*FLUIDSYNTH, "-F", out, soundfont, score]
        subprocess.run(command, check=True, capture_output=True)
        samples, _ = soundfile.read(out, dtype="float32", always_2d=True)
    return trim(samples.T)


def midi_file(program: int, note: int, gate_s: float) -> bytes:
    """Return a MIDI file (format 0, one track) of one note."""

    def variable_length(ticks: int) -> bytes:
        # seven bits a byte, all bytes but the last with the top bit set
        parts = [ticks & 0x7F]
        while ticks := ticks >> 7:
            parts.append((ticks & 0x7F) | 0x80)
        return bytes(reversed(parts))

    held = round(gate_s * TICKS_PER_S)
    total = round((CLIP_S + 0.2) * TICKS_PER_S)
    # program change, note on, note off, end of track; each after its delay
    events = b"\0" + bytes([0xC0, program])
    events += b"\0" + bytes([0x90, note, 100])
    events += variable_length(held) + bytes([0x80, note, 0])
    events += variable_length(total - held) + b"\xff\x2f\0"
    division = TICKS_PER_BEAT.to_bytes(2, "big")
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + division
    return header + b"MTrk" + len(events).to_bytes(4, "big") + events


def trim(sound: Sound) -> Sound:
    """Cut a sound from its onset to CLIP_S at most, and fade its end out."""
    level = np.abs(sound).max(axis=0)
    onset = np.flatnonzero(level > ONSET_SHARE * np.abs(sound).max())[0]
    part = sound[:, onset : onset + round(CLIP_S * RATE)].copy()
    n = round(FADE_S * RATE)
    part[:, -n:] *= np.linspace(1.0, 0.0, n, dtype=np.float32)
    return part


def one_shots(folder: Path) -> list[OutsideClip]:
    """Read Sonic Pi's samples, whose note is unknown."""
    clips = []
    for name in SAMPLES:
        sound, rate = audio.read(folder / f"{name}.flac")
        stereo = np.repeat(sound, 2, axis=0)[:2] if len(sound) == 1 else sound[:2]
        clip = OutsideClip(
            name=name.replace("_", "-"),
            kind="sample",
            sound=trim(audio.resample(stereo, rate, RATE)),
            note=None,
            gate_s=None,
            chain=(),
            origin=f"Sonic Pi sample {name}",
            license="CC0-1.0",
        )
        clips.append(clip)
    return clips


class PedalboardEffect(Protocol):
    """An effect of pedalboard: sound [channel, time], sample rate -> sound."""

    def __call__(self, sound: Sound, rate: float, *, reset: bool) -> Sound: ...


def effect_makers(rng: np.random.Generator) -> dict[str, Callable[[], PedalboardEffect]]:
    """Return for each of our effects a function that draws pedalboard's effect of that kind."""
    import pedalboard as p  # no requirement of ours

    u = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    low_pass = p.LadderFilter.Mode.LPF24
    return {
        "Saturator": lambda: p.Distortion(drive_db=u(10, 26)),
        "Compressor": lambda: p.Compressor(
            u(-36, -24), ratio=u(4, 12), attack_ms=u(1, 20), release_ms=u(40, 200)
        ),
        "Auto Filter": lambda: p.LadderFilter(
            low_pass, u(300, 1500), resonance=u(0.2, 0.7), drive=u(1, 3)
        ),
        "EQ Eight": lambda: p.PeakFilter(
            cutoff_frequency_hz=u(300, 3000), gain_db=u(9, 15), q=u(0.7, 2)
        ),
        "Chorus-Ensemble": lambda: p.Chorus(
            u(0.5, 2), u(0.3, 0.7), centre_delay_ms=u(6, 12), mix=0.5
        ),
        "Phaser-Flanger": lambda: p.Phaser(
            u(0.3, 1.5), u(0.5, 0.9), u(500, 1500), feedback=u(0.2, 0.6), mix=0.5
        ),
        "Delay": lambda: p.Delay(
            delay_seconds=u(0.12, 0.35), feedback=u(0.2, 0.5), mix=u(0.25, 0.45)
        ),
        "Reverb": lambda: p.Reverb(
            u(0.4, 0.9), u(0.2, 0.7), wet_level=u(0.3, 0.5), dry_level=u(0.4, 0.6)
        ),
    }


def through_effects(notes: list[OutsideClip], rng: np.random.Generator) -> list[OutsideClip]:
    """Send notes through drawn chains of two or three effects, each of them audible."""
    make = effect_makers(rng)
    clips: list[OutsideClip] = []
    while len(clips) < N_EFFECTS_CLIPS:
        note = notes[len(clips) % len(notes)]
        shuffled = rng.permutation(list(make))
        names = [str(name) for name in shuffled[: int(rng.integers(2, 4))]]
        if all(commutes(a, b) for a, b in combinations(names, 2)):
            continue
        effects = [(name, make[name]()) for name in names]
        wet = apply(note.sound, effects)
        if not np.isfinite(wet).all() or not audible(note.sound, effects, wet):
            continue
        settings = "; ".join(described(effect) for _, effect in effects)
        short_names = "-".join(name.split()[0].split("-")[0].lower() for name in names)
        clip = OutsideClip(
            name=f"{note.name}-through-{short_names}",
            kind="effects",
            sound=wet,
            note=note.note,
            gate_s=note.gate_s,
            chain=tuple(names),
            origin=f"{note.origin} through pedalboard: {settings}",
            license=note.license,
        )
        clips.append(clip)
    return clips


def apply(dry: Sound, effects: list[tuple[str, PedalboardEffect]]) -> Sound:
    """Send a note through a chain, with a peak of EFFECT_PEAK before each effect."""
    sound = np.pad(dry, [(0, 0), (0, max(0, round(CLIP_S * RATE) - dry.shape[1]))])
    for _, effect in effects:
        sound = effect(
            sound * (EFFECT_PEAK / max(float(np.abs(sound).max()), 1e-9)), RATE, reset=True
        )
    return trim(np.asarray(sound, dtype=np.float32))


def audible(dry: Sound, effects: list[tuple[str, PedalboardEffect]], wet: Sound) -> bool:
    """Return whether each effect and each order changes the sound by AUDIBLE_DB.

    Compared with the chain without the effect, and with each pair that does not commute exchanged.
    """
    others = [effects[:i] + effects[i + 1 :] for i in range(len(effects))]
    for i, j in combinations(range(len(effects)), 2):
        if not commutes(effects[i][0], effects[j][0]):
            swapped = list(effects)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            others.append(swapped)
    for other in others:
        if metrics_sound.mss(apply(dry, other), wet, RATE) < AUDIBLE_DB:
            return False
    return True


def described(effect: PedalboardEffect) -> str:
    """Return class and settings, as pedalboard prints them."""
    return " ".join(repr(effect).split(" at ")[0].lstrip("<").split()).removeprefix("pedalboard.")


if __name__ == "__main__":
    main()
