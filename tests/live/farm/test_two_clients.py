"""One host, and somebody else.

A busy port, other clients of the same host, a Live that is ended and started again.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.live.farm.test_faults import AUDIO, impatient, patches, right  # noqa: F401 (fixtures)
from unmixer_core.errors import HostDied, HostError, PortBusy
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.osc import wire
from unmixer_core.live.renderer import Renderer

pytestmark = pytest.mark.skipif(
    find_spec("vita") is None, reason="the embedded host sounds through vita"
)
REPOSITORY = Path(__file__).resolve().parents[3]


class Live:
    """An embedded host in Live's place.

    A process on ports that the environment names, for a Renderer to find.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.reply_port = free_port(), free_port()
        self.start()

    def start(self) -> None:
        command = [
            "--port",
            str(self.port),
            "--reply-port",
            str(self.reply_port),
            "--recordings",
            str(self.folder),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unmixer_core.headless", *command],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
        )
        assert (
            self.process.stdout is not None and self.process.stdout.readline().strip() == b"ready"
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def live(tmp_path, monkeypatch, impatient) -> Iterator[Live]:  # noqa: F811
    host = Live(tmp_path)
    monkeypatch.setenv("UNMIXER_LIVE_HOST", "127.0.0.1")
    monkeypatch.setenv("UNMIXER_OSC_PORT", str(host.port))
    monkeypatch.setenv("UNMIXER_OSC_REPLY_PORT", str(host.reply_port))
    yield host
    host.kill()


class Other:
    """Another client: says `messages` to the host every few milliseconds, from the address `ip`."""

    def __init__(self, port: int, ip: str, *messages: wire.Message) -> None:
        self.port, self.ip, self.messages = port, ip, messages
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk)

    def __enter__(self) -> Other:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _talk(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind((self.ip, 0))
            while not self._stop.wait(0.005):
                for message in self.messages:
                    own.sendto(wire.encode(*message), ("127.0.0.1", self.port))


def outcome(lanes: int = 2) -> tuple[dict[int, np.ndarray], list[str]]:
    """Clips by patch, and errors."""
    clips, errors = {}, []
    try:
        with Renderer(AUDIO, lanes=lanes) as renderer:
            for i, result in renderer.map(patches()):
                if isinstance(result, RenderFailure):
                    errors.append(result.reason)
                else:
                    clips[i] = result
    except HostError as error:
        errors.append(str(error))
    return clips, errors


OTHERS = {
    "asks": [
        ("/live/song/get/tempo", ()),
        ("/live/clip/get/is_recording", (5, 0)),
        ("/live/track/get/name", (4,)),
    ],
    "asks what is not there": [("/live/track/get/name", (99,)), ("/live/nothing", ())],
    "sets the tempo": [("/live/song/set/tempo", (97.0,))],
    "turns a knob": [("/live/device/set/parameter/value", (4, 0, 1, 0.0))],
    "adds tracks": [("/live/song/create_midi_track", (0,)), ("/live/song/delete_track", (0,))],
}


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize("what", OTHERS)
def test_another_client_spoils_no_sound(what, ip, live, right) -> None:  # noqa: F811
    if ip != "127.0.0.1" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux has all of 127.0.0.0/8")
    with Other(live.port, ip, *OTHERS[what]):
        clips, errors = outcome()
    for i, clip in clips.items():
        np.testing.assert_array_equal(clip, right[i], err_msg=f"patch {i}")
    assert len(clips) == 3 or errors
    assert all(error.endswith((".", "?")) for error in errors), errors


def test_a_second_renderer_is_told_that_the_port_is_taken(live) -> None:
    with (
        Renderer(AUDIO, lanes=1),
        pytest.raises(PortBusy, match=f"UDP port {live.reply_port}"),
        Renderer(AUDIO, lanes=1),
    ):
        pass


def test_a_host_that_cannot_have_its_port_is_named(impatient) -> None:  # noqa: F811
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with (
            pytest.raises(HostDied, match=f"Cannot listen on 127.0.0.1:{port}"),
            Renderer(AUDIO, n_hosts=1, host_options=["--port", str(port)]),
        ):
            pass


def test_a_live_that_is_ended_and_started_again_loses_no_patch(live, right) -> None:  # noqa: F811
    clips = {}
    with Renderer(AUDIO, lanes=2) as renderer:
        for i, clip in renderer.map(patches()):
            if not clips:
                live.kill()
                threading.Timer(0.3, live.start).start()
            clips[i] = clip
    assert sorted(clips) == [0, 1, 2]
    for i, clip in clips.items():
        np.testing.assert_array_equal(clip, right[i])


def test_a_live_that_is_not_there_is_named_soon(live) -> None:
    live.kill()
    start_s = time.monotonic()
    with (
        pytest.raises(HostError, match="did not answer .* check that Live is running"),
        Renderer(AUDIO, lanes=1),
    ):
        pass
    assert time.monotonic() - start_s < 5.0
