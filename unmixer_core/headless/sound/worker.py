"""A rendering process: reads one job a line (JSON) from standard input, writes the WAV, answers one
line.

A used Vital keeps LFO and tail state, so every render needs a pristine one. Where the system can
fork safely (Linux) this process keeps one pristine Synth and renders in a fork of itself, which is
cheaper than the 65 ms of a new Synth and shields it from a crash; elsewhere each job builds its
own. The process is single-threaded and ends with its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import vita
from numpy.typing import NDArray

from unmixer_core.errors import UnmixerError
from unmixer_core.headless.sound import wav
from unmixer_core.headless.sound.device_state import DeviceState
from unmixer_core.headless.sound.job import SoundJob
from unmixer_core.headless.sound.voice import preset

CAN_FORK = sys.platform.startswith("linux")
#: What a new Synth runs at.
VITA_SAMPLE_RATE = 44100
#: Vital fades the last 200 samples of a render; we render this much more and cut it off.
FADE_SAMPLES = 512
#: Vital glides to a preset's phases, cutoffs, drives and delay times (constant 32 ms); a silent
#: note lets them arrive.
SETTLE_S = 0.2


class Pristine:
    """A Synth that never sounded, at the sample rate asked for last (to change it touches all of
    its memory, so it is changed before a fork, not in it).
    """

    def __init__(self) -> None:
        self._synth, self._rate = vita.Synth(), VITA_SAMPLE_RATE

    def at(self, sample_rate: int) -> vita.Synth:
        """A synthesizer that has played nothing yet, at `sample_rate` in Hz."""
        if sample_rate != self._rate:
            self._synth.set_sample_rate(sample_rate)
            self._rate = sample_rate
        return self._synth


def render(job: SoundJob, synth: vita.Synth, text: str) -> NDArray[np.float32]:
    """The job's sound, float32 [2, samples], from a `synth` that never sounded.

    velocity 0 is silence.
    """
    samples, start = round(job.duration_s * job.sample_rate), round(job.start_s * job.sample_rate)
    audio = np.zeros((2, samples), dtype=np.float32)
    if job.velocity <= 0.0 or start >= samples:
        return audio
    if not synth.load_json(text):
        raise UnmixerError("Vital refused the preset; is another version of vita installed?")
    _settle(synth, job.note)
    sound = synth.render(
        job.note, job.velocity, job.gate_s, (samples - start + FADE_SAMPLES) / job.sample_rate
    )
    audio[:, start:] = sound[:, : samples - start]
    return audio


def _settle(synth: vita.Synth, note: int) -> None:
    """Runs the engine for SETTLE_S with a voice that is muted and dies at once."""
    controls = synth.get_controls()
    held = {
        name: controls[name].value()
        for name in ("voice_amplitude", "env_1_attack", "env_1_decay", "env_1_release")
    }
    for name in held:
        controls[name].set(0.0)
    synth.render(note, 0.0, 0.001, SETTLE_S)
    for name, value in held.items():
        controls[name].set(value)


def serve() -> None:
    """Answers jobs until standard input ends: {"ok": true} or {"error": sentence}."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    pristine = Pristine()
    for line in sys.stdin:
        job = SoundJob(**json.loads(line))
        try:
            text = preset(
                [DeviceState.from_dict(device) for device in job.devices],
                job.tempo_bpm,
                for_render=True,
            )
            error = record(job, pristine, text)
            pristine = pristine if CAN_FORK else Pristine()
        except (UnmixerError, OSError, KeyError, ValueError) as problem:
            error = str(problem)
        sys.stdout.write(json.dumps({"error": error} if error else {"ok": True}) + "\n")
        sys.stdout.flush()


def record(job: SoundJob, pristine: Pristine, text: str) -> str:
    """Writes the job's file from the preset `text`.

    Returns "" or what went wrong; `pristine` is used up where we cannot fork.
    """
    synth = pristine.at(job.sample_rate)
    if CAN_FORK:
        return _in_fork(job, synth, text)
    wav.write(Path(job.path), render(job, synth, text), job.sample_rate)
    return ""


def _in_fork(job: SoundJob, synth: vita.Synth, text: str) -> str:
    """`record` in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _child(job, synth, text, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        words = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return words or (
        ""
        if status == 0
        else f"the render process ended with status {os.waitstatus_to_exitcode(status)}"
    )


def _child(job: SoundJob, synth: vita.Synth, text: str, writer: int) -> None:
    status = 0
    try:
        wav.write(Path(job.path), render(job, synth, text), job.sample_rate)
    except BaseException as problem:
        os.write(writer, f"{type(problem).__name__}: {problem}".encode())
        status = 1
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()
