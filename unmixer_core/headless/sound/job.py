"""One recording to render, as the server hands it to a worker: plain data, one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from unmixer_core.system.json_types import Json


@dataclass(frozen=True)
class SoundJob:
    """One recording: the lane's devices, the note (MIDI, velocity 0..1, seconds from the start)
    and the file to write.
    """

    devices: list[Json]
    note: int
    velocity: float
    start_s: float
    gate_s: float
    duration_s: float
    tempo_bpm: float
    sample_rate: int
    path: str

    def to_line(self) -> str:
        """One line of JSON, as the worker reads it."""
        return json.dumps(asdict(self)) + "\n"
