"""`python -m unmixer_app.service.decoder`: decode untrusted uploads under hard limits.

Each file is parsed in a forked process of its own, whose memory, time and disk are limited. If a
file makes libsndfile crash or loop, only that process ends, and the answer is a sentence.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from unmixer_app.service import heard_file
from unmixer_core import audio, config
from unmixer_core.errors import UnmixerError
from unmixer_core.recording import note, sound_file
from unmixer_core.system.child import ROOT
from unmixer_core.system.json_types import Json

UPLOAD = "upload.bin"
#: Address space of the forked process beyond that of this process.
MEMORY_BYTES = 1536 << 20
#: Processor time of the forked process.
CPU_S = 20
#: Time of the forked process, waiting included.
WALL_S = 60
#: Largest file that the forked process may write.
FILE_BYTES = 64 << 20
#: Open files of the forked process.
FILES = 32
ENDS: dict[int, str] = {signal.SIGXCPU: "it took too long", signal.SIGALRM: "it took too long"}


def main() -> None:
    """Requests are {"folder", "name", "note", "gate_s"}; done is heard.json's content.

    Beside "failed", "why" tells that the file is not to blame.
    """
    params = config.load(ROOT / "params.yaml")
    warm = note.RecordedNote, audio.resample, sound_file.SUFFIXES
    from scipy.signal import resample_poly  # once, before any fork

    assert warm and resample_poly
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    out.write("{}\n")
    out.flush()
    for line in sys.stdin:
        out.write(json.dumps(_decode_in_fork(json.loads(line), params)) + "\n")
        out.flush()


def _decode_in_fork(request: Json, params: config.Params) -> Json:
    """Decode in a forked process; return its answer, or a sentence when it died."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            os.write(write_end, json.dumps(_limited(request, params)).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        written = pipe.read()
    _, status = os.waitpid(child, 0)
    if written:
        answer: Json = json.loads(written)
        return answer
    how = ENDS.get(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, "the decoder broke on it")
    return {"failed": f"{request['name']} cannot be read as audio ({how})."}


def _limited(request: Json, params: config.Params) -> Json:
    """Set the limits, then decode the file; runs in the forked process."""
    confine()
    os.chdir(request["folder"])
    try:
        recorded = note.detect_note(
            Path(UPLOAD),
            rate=params.audio.sample_rate,
            clip_s=params.audio.clip_s,
            note_range=(params.sample.note_low, params.sample.note_high),
            note=request["note"],
            gate_s=request["gate_s"],
        )
        recorded.about["file"] = request["name"]
        return {"done": heard_file.write(Path(), recorded)}
    except UnmixerError as error:
        return {"failed": " ".join(str(error).split()).replace(UPLOAD, request["name"], 1)}
    except MemoryError:
        return {"failed": f"{request['name']} cannot be read as audio (it takes too much memory)."}
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return {
            "failed": f"{request['name']} cannot be kept ({error.strerror}).",
            "why": "disk" if full else "machine",
        }


def confine() -> None:
    """Hard limits on this process, as far as the system has them."""
    limits = {
        resource.RLIMIT_AS: _memory_now() + MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        with suppress(ValueError, OSError):  # macOS refuses some
            resource.setrlimit(
                kind, (value, value + (kind == resource.RLIMIT_CPU))
            )  # a second to say why
    signal.alarm(WALL_S)


def _memory_now() -> int:
    """Bytes of address space in use (Linux; elsewhere a generous guess)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 8 << 30


if __name__ == "__main__":
    main()
