"""The checked options of `unmix`, with the parameters of the search."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from unmixer_core import config
from unmixer_core.inference.constraints import Constraints
from unmixer_core.recording import note as recording_note

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Request:
    """The checked options of one search, and its parameters.

    None stands for the value of the parameters.
    """

    note: int | None
    gate_s: float | None
    candidates: int | None
    itf_steps: int | None
    itf: bool
    fast: bool
    polish_s: float | None
    constraints: Constraints
    push: bool
    json: bool
    model: Path | None
    params: config.Params

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Request:
        """Make a request from parsed arguments. Raises ConfigError."""
        return cls(
            note=arguments.note,
            gate_s=arguments.gate,
            candidates=arguments.candidates,
            itf_steps=arguments.itf_steps,
            itf=not arguments.no_itf,
            fast=arguments.fast,
            polish_s=arguments.polish,
            constraints=Constraints.parse(arguments.lock, arguments.chain),
            push=arguments.push,
            json=arguments.json,
            model=arguments.model,
            params=config.load(ROOT / "params.yaml"),
        )

    def detect_note(self, path: Path) -> recording_note.RecordedNote:
        """Detect the note of a sound file, at the clips' sample rate and length.

        Raises AudioError when the file holds no note.
        """
        audio, sample = self.params.audio, self.params.sample
        return recording_note.detect_note(
            path,
            rate=audio.sample_rate,
            clip_s=audio.clip_s,
            note_range=(sample.note_low, sample.note_high),
            note=self.note,
            gate_s=self.gate_s,
        )
