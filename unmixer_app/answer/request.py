"""What a person asked of `unmix`, checked, with the parameters it is answered with."""

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
    """What was asked for, checked, and the parameters it is answered with."""

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
    def of(cls, o: argparse.Namespace) -> Request:
        """From parsed arguments. Raises ConfigError."""
        constraints = Constraints.parse(o.lock, o.chain)
        return cls(
            o.note,
            o.gate,
            o.candidates,
            o.itf_steps,
            not o.no_itf,
            o.fast,
            o.polish,
            constraints,
            o.push,
            o.json,
            o.model,
            config.load(ROOT / "params.yaml"),
        )

    def listen(self, path: Path) -> recording_note.RecordedNote:
        """The note of a file, at the clips' rate and length."""
        audio, sample = self.params.audio, self.params.sample
        return recording_note.detect_note(
            path,
            rate=audio.sample_rate,
            clip_s=audio.clip_s,
            note_range=(sample.note_low, sample.note_high),
            note=self.note,
            gate_s=self.gate_s,
        )
