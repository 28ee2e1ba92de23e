"""Make `benchmarks/outside/`.

Sounds that are not this project's own, for `benchmark_itf` and `python -m benchmarks.unmix.bars`.

    apt-get install fluidsynth fluid-soundfont-gm sonic-pi-samples && pip install pedalboard python
    -m benchmarks.unmix.outside_clips [--soundfont FluidR3_GM.sf2] [--samples
    /usr/share/sonic-pi/samples]

Three kinds of clip, each a short stereo FLAC of one note, named in clips.csv with its note, gate
and origin: instruments (Fluid R3, MIT: one recorded instrument, one note), samples (Sonic Pi, CC0:
one-shots as they are), and effects: instrument notes sent through two or three of pedalboard's
effects (Spotify's, none of ours). Of the drawn effect chains those are kept in which each effect,
and the order of each pair that has a nonlinear effect, changes the sound by at least 1 dB MSS: what
nobody can hear is no question. Everything is drawn from a seed; the host plays no part.
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
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from unmixer_core import audio
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema.chain import commutes

RATE, LEAD_S, CLIP_S = 44100, 0.05, 2.0
SEED = 20264
AUDIBLE_DB = 1.0
N_EFFECTS_CLIPS = 28
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

    note: MIDI, None where the origin does not say.
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
            written(options.out / f"{clip.name}.flac", clip.sound)
            gate = "" if clip.gate_s is None else f"{clip.gate_s:.2f}"
            chain = " > ".join(clip.chain)
            lines.writerow(
                [
                    f"{clip.name}.flac",
                    clip.kind,
                    clip.note or "",
                    gate,
                    chain,
                    clip.origin,
                    clip.license,
                ]
            )


def written(path: Path, sound: Sound) -> None:
    """Peak at -3 dBFS, LEAD_S of silence before the note, 16 bit."""
    loud = sound * (0.708 / max(float(np.abs(sound).max()), 1e-9))
    padded = np.pad(loud, [(0, 0), (round(LEAD_S * RATE), 0)])
    soundfile.write(path, padded.T, RATE, format="FLAC", subtype="PCM_16")


def instruments(soundfont: Path, rng: np.random.Generator) -> list[OutsideClip]:
    """One note of each instrument, within the notes and gates that the model knows."""
    clips = []
    for program, name in INSTRUMENTS:
        note, gate_s = int(rng.integers(40, 65)), round(float(rng.uniform(0.3, 1.2)), 2)
        sound = played(soundfont, program, note, gate_s)
        origin = f"Fluid R3 GM, program {program} ({name})"
        clips.append(
            OutsideClip(
                f"{name.replace(' ', '-')}-{note}",
                "instrument",
                sound,
                note,
                gate_s,
                (),
                origin,
                "MIT",
            )
        )
    return clips


def played(soundfont: Path, program: int, note: int, gate_s: float) -> Sound:
    """One note by fluidsynth, its own reverb and chorus off, cut to CLIP_S from its onset."""
    with tempfile.TemporaryDirectory() as folder:
        score, out = Path(folder) / "note.mid", Path(folder) / "note.wav"
        score.write_bytes(midi(program, note, gate_s))
        subprocess.run(
            [
                "fluidsynth",
                "-ni",
                "-q",
                "-R",
                "0",
                "-C",
                "0",
                "-g",
                "0.6",
                "-r",
                str(RATE),
                "-F",
                out,
                soundfont,
                score,
            ],
            check=True,
            capture_output=True,
        )
        samples, _ = soundfile.read(out, dtype="float32", always_2d=True)
    return faded(samples.T)


def midi(program: int, note: int, gate_s: float) -> bytes:
    """A MIDI file of one note (format 0, 960 ticks a beat of half a second)."""

    def variable(ticks: int) -> bytes:
        parts = [ticks & 0x7F]
        while ticks := ticks >> 7:
            parts.append((ticks & 0x7F) | 0x80)
        return bytes(reversed(parts))

    held, rest = round(gate_s * 1920), round((CLIP_S + 0.2) * 1920)
    events = b"\0" + bytes([0xC0, program]) + b"\0" + bytes([0x90, note, 100])
    events += variable(held) + bytes([0x80, note, 0]) + variable(rest - held) + b"\xff\x2f\0"
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 960 >> 8, 960 & 0xFF])
    return header + b"MTrk" + len(events).to_bytes(4, "big") + events


def faded(sound: Sound) -> Sound:
    """From the onset, CLIP_S at most, the last 20 ms faded out."""
    loud = np.flatnonzero(np.abs(sound).max(axis=0) > 1e-3 * np.abs(sound).max())
    part = sound[:, loud[0] : loud[0] + round(CLIP_S * RATE)].copy()
    n = round(0.02 * RATE)
    part[:, -n:] *= np.linspace(1.0, 0.0, n, dtype=np.float32)
    return part


def one_shots(folder: Path) -> list[OutsideClip]:
    """Sonic Pi's samples; the note is not told."""
    clips = []
    for name in SAMPLES:
        sound, rate = audio.read(folder / f"{name}.flac")
        stereo = np.repeat(sound, 2, axis=0)[:2] if len(sound) == 1 else sound[:2]
        clip = faded(audio.resample(stereo, rate, RATE))
        clips.append(
            OutsideClip(
                name.replace("_", "-"),
                "sample",
                clip,
                None,
                None,
                (),
                f"Sonic Pi sample {name}",
                "CC0-1.0",
            )
        )
    return clips


def makers(rng: np.random.Generator) -> dict[str, Callable[[], Any]]:
    """Our effect's name -> a drawn pedalboard effect of that kind."""
    import pedalboard as p

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
    """Notes through drawn chains of two or three effects, each of which can be heard where it
    stands.
    """
    make, clips = makers(rng), list[OutsideClip]()
    while len(clips) < N_EFFECTS_CLIPS:
        note = notes[len(clips) % len(notes)]
        names = [str(name) for name in rng.permutation(list(make))[: int(rng.integers(2, 4))]]
        if all(commutes(a, b) for a, b in combinations(names, 2)):
            continue
        effects = [(name, make[name]()) for name in names]
        wet = sent(note.sound, effects)
        if np.isfinite(wet).all() and audible(note.sound, effects, wet):
            origin = (
                f"{note.origin} through pedalboard: {'; '.join(described(e) for _, e in effects)}"
            )
            name = (
                f"{note.name}-through-{'-'.join(n.split()[0].split('-')[0].lower() for n in names)}"
            )
            clips.append(
                OutsideClip(
                    name, "effects", wet, note.note, note.gate_s, tuple(names), origin, note.license
                )
            )
    return clips


def sent(dry: Sound, effects: list[tuple[str, Any]]) -> Sound:
    """The note through the chain.

    0.5 dB below full scale between effects, as a person would set the gain.
    """
    sound = np.pad(dry, [(0, 0), (0, max(0, round(CLIP_S * RATE) - dry.shape[1]))])
    for _, effect in effects:
        sound = effect(sound * (0.5 / max(float(np.abs(sound).max()), 1e-9)), RATE, reset=True)
    return faded(np.asarray(sound, dtype=np.float32))


def audible(dry: Sound, effects: list[tuple[str, Any]], wet: Sound) -> bool:
    """Whether the sound changes by AUDIBLE_DB without each effect, and with each pair that does
    not commute exchanged.
    """
    others = [effects[:i] + effects[i + 1 :] for i in range(len(effects))]
    for i, j in combinations(range(len(effects)), 2):
        if not commutes(effects[i][0], effects[j][0]):
            swapped = list(effects)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            others.append(swapped)
    return all(metrics_sound.mss(sent(dry, other), wet, RATE) >= AUDIBLE_DB for other in others)


def described(effect: Any) -> str:
    """Class and settings, as pedalboard prints them."""
    return " ".join(repr(effect).split(" at ")[0].lstrip("<").split()).removeprefix("pedalboard.")


if __name__ == "__main__":
    main()
