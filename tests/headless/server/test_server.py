"""The process: ready on a port of its own, records over UDP, survives a crash of a render, ends
with its parent.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE_S = 30.0


def message(address: str, *args: Any):
    builder = OscMessageBuilder(address)
    for value in args:
        builder.add_arg(value)
    return builder.build()


class Host:
    """A host process and a client's socket."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(PATIENCE_S)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        ports = ["--port", str(self.port), "--reply-port", str(self.socket.getsockname()[1])]
        command = [
            sys.executable,
            "-m",
            "unmixer_core.headless",
            *ports,
            "--recordings",
            str(folder),
            *options,
        ]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready"
        assert self.receive()[0] == "/live/startup"

    def send(self, *messages: Any) -> None:
        bundle = OscBundleBuilder(IMMEDIATELY)
        for content in messages:
            bundle.add_content(content)
        packet = messages[0] if len(messages) == 1 else bundle.build()
        self.socket.sendto(packet.dgram, ("127.0.0.1", self.port))

    def receive(self) -> tuple[str, list[Any]]:
        reply = OscMessage(self.socket.recv(65535))
        return reply.address, list(reply.params)

    def ask(self, address: str, *args: Any) -> list[Any]:
        self.send(message(address, *args))
        answered, values = self.receive()
        assert answered == address, values
        return values

    def lane(self, midi: int, capture: int, note: int = 57) -> None:
        name = self.ask("/live/track/get/name", midi)[1]
        self.ask("/unmixer/track/insert_device", 100 + midi, midi, "Wavetable", 0)
        self.send(message("/live/clip_slot/create_clip", midi, 0, 4.0))
        self.send(message("/live/clip/add/notes", midi, 0, note, 0.0, 0.4, 127, False))
        self.send(message("/live/track/set/input_routing_type", capture, name))
        self.send(message("/live/track/set/arm", capture, 1))

    def fire(self, *lanes: tuple[int, int], slot: int = 0, beats: float = 1.0) -> None:
        """(midi, capture) pairs, all in one bundle."""
        notes = [message("/live/clip_slot/fire", midi, 0) for midi, _ in lanes]
        self.send(
            *notes, *[message("/live/clip_slot/fire", capture, slot, beats) for _, capture in lanes]
        )

    def recorded(self, capture: int, slot: int = 0) -> str | None:
        for _ in range(int(PATIENCE_S / 0.01)):
            if not self.ask("/live/clip/get/is_recording", capture, slot)[2]:
                return self.ask("/live/clip/get/file_path", capture, slot)[2]
            time.sleep(0.01)
        raise AssertionError("the recording never ended")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    result = Host(tmp_path)
    yield result
    result.close()


def test_records_what_the_lane_plays(host, tmp_path) -> None:
    host.lane(0, 2)
    host.lane(1, 3, note=69)
    host.fire((0, 2), (1, 3))
    paths = [host.recorded(2), host.recorded(3)]
    sounds = [soundfile.read(path, always_2d=True) for path in paths]
    for audio, rate in sounds:
        assert (rate, audio.shape) == (44100, (22050, 2))  # one beat at 120
        assert 0.05 < np.abs(audio).max() < 1.0
    assert not np.array_equal(sounds[0][0], sounds[1][0])
    assert host.ask("/live/clip/get/sample_length", 2, 0)[2] == 22050
    assert host.ask("/live/song/get/track_data", 2, 3, "clip.sample_rate")[0] == 44100.0
    host.fire((0, 2), slot=1)
    again, _ = soundfile.read(host.recorded(2, 1), always_2d=True)
    assert np.array_equal(again, sounds[0][0])
    assert sorted(tmp_path.iterdir()) == sorted(
        Path(p) for p in [*paths, host.ask("/live/clip/get/file_path", 2, 1)[2]]
    )


def test_failed_render_ends_the_recording_without_a_file(host) -> None:
    host.lane(0, 2)
    for request in (1, 2):
        host.ask("/unmixer/track/insert_device", request, 0, "Reverb", -1)
    host.fire((0, 2))
    address, words = host.receive()
    assert address == "/live/error" and "only one Reverb" in words[0]
    assert host.recorded(2) is None
    host.ask("/unmixer/track/delete_device", 1, 0, 2)
    host.fire((0, 2), slot=1)
    assert Path(host.recorded(2, 1)).exists()


def test_killed_worker_is_reported_and_replaced(host) -> None:
    import psutil

    host.lane(0, 2)
    for child in psutil.Process(host.process.pid).children(recursive=True):
        child.kill()
    host.fire((0, 2))
    address, words = host.receive()
    assert address == "/live/error" and words[0].startswith("Recording failed")
    assert host.recorded(2) is None
    host.fire((0, 2), slot=1)
    assert Path(host.recorded(2, 1)).exists()


def test_recording_waits_for_a_note_fired_after_it(host) -> None:
    host.lane(0, 2)
    host.send(message("/live/clip_slot/fire", 2, 0, 1.0))
    host.send(message("/live/clip_slot/fire", 0, 0))
    audio, _ = soundfile.read(host.recorded(2), always_2d=True)
    assert np.abs(audio).max() > 0.05


def test_terminates_cleanly_with_its_workers(host) -> None:
    import psutil

    children = psutil.Process(host.process.pid).children(recursive=True)
    host.process.send_signal(signal.SIGTERM)
    assert host.process.wait(timeout=PATIENCE_S) == 0
    assert psutil.wait_procs(children, timeout=PATIENCE_S)[1] == []


def test_busy_port_is_named(host, tmp_path) -> None:
    command = [
        sys.executable,
        "-m",
        "unmixer_core.headless",
        "--port",
        str(host.port),
        "--recordings",
        str(tmp_path),
    ]
    second = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (
        second.returncode == 1
        and str(host.port) in second.stderr
        and len(second.stderr.splitlines()) == 1
    )


def test_ends_when_its_parent_is_gone(tmp_path) -> None:
    import psutil

    code = (
        "import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-m', "
        "'unmixer_core.headless', '--port', '0', "
        f"'--reply-port', '9', '--recordings', {str(tmp_path)!r}, '--parent-pid', "
        f"str(os.getpid())], stdout=subprocess.PIPE); "
        "p.stdout.readline(); print(p.pid)"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    pid = int(parent.stdout)
    try:
        psutil.Process(pid).wait(timeout=PATIENCE_S)
    except psutil.NoSuchProcess:
        pass


def test_ticks_answer_all_that_waits_at_once(tmp_path) -> None:
    host = Host(tmp_path, "--tick-ms", "50")
    try:
        for i in range(20):
            host.send(message("/live/track/get/name", i % 4))
        assert [host.receive()[1][0] for _ in range(20)] == [i % 4 for i in range(20)]
    finally:
        host.close()
