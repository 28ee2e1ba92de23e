"""A whole host in one process: every fault ends in the right sound or a named error, and the user's set stays as it was."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import numpy as np
import pytest

from unmixer_core.errors import HostError, HostRefused, HostTimeout, ReadbackMismatch, RecordingError
from unmixer_core.live import recorder
from unmixer_core.live.client import Timing
from unmixer_core.live.recorder import Take
from unmixer_core.live.session import Session
from unmixer_core.live.transport import Endpoint
from unmixer_core.schema.patch import Patch

from .fake_host import CLIP_S, RATE, VELOCITY, FakeHost, Faults, expected

TAKE = Take(RATE, CLIP_S, VELOCITY)
QUICK = Timing(timeout_s=0.05, tries=4)


def patches(n, seed=0):
    rng = np.random.default_rng(seed)
    effects = [
        "Auto Filter",
        "Saturator",
        "Compressor",
        "EQ Eight",
        "Chorus-Ensemble",
        "Phaser-Flanger",
        "Delay",
        "Reverb",
    ]
    result = []
    for _ in range(n):
        patch = Patch.init(
            int(rng.integers(36, 72)),
            float(rng.uniform(0.1, 0.4)),
            list(rng.permutation(effects)[: rng.integers(0, 9)]),
        )
        knobs = rng.uniform(0.0, 1.0, len(patch.knobs)).astype(np.float32)
        choices = (rng.integers(0, 2, len(patch.choices))).astype(np.int64)
        result.append(Patch(knobs, choices, patch.chain, patch.note, patch.gate_s))
    return result


async def opened(host, lanes=1, timing=QUICK):
    return await Session.open(Endpoint(), TAKE, lanes=lanes, transport=host, timing=timing, delete_files=True)


def test_lanes_render_what_the_patches_say_side_by_side(tmp_path):
    async def main():
        async with await opened(FakeHost(tmp_path), lanes=3) as live:
            wanted = patches(9)
            clips = await asyncio.gather(*(one_lane(live, lane, wanted[lane::3]) for lane in range(3)))
            return [
                (clip, patch) for lane in range(3) for clip, patch in zip(clips[lane], wanted[lane::3], strict=True)
            ]

    async def one_lane(live, lane, wanted):
        return [await live.render(lane, patch) for patch in wanted]

    for clip, patch in asyncio.run(main()):
        np.testing.assert_array_equal(clip, expected(patch))
    assert not list(tmp_path.iterdir())


FAULTS = {
    "loss": Faults(loss=0.03),
    "duplicates": Faults(duplicate=0.3),
    "late": Faults(late=0.05, late_s=0.06),
    "reordered": Faults(reorder=0.2),
    "errors in the tick": Faults(error_every=23),
    "everything": Faults(loss=0.01, duplicate=0.05, late=0.02, reorder=0.05, error_every=61),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_the_right_sound_or_a_named_error(fault, seed, tmp_path):
    host = FakeHost(tmp_path)

    async def main():
        right = named = 0
        async with await opened(host) as live:
            host.faults = Faults(**asdict(FAULTS[fault]) | {"seed": seed})
            host.random.seed(seed)
            for patch in patches(5, seed):
                try:
                    clip = await live.render(0, patch)
                except HostError as error:
                    assert str(error).endswith(".") or "." in str(error)
                    named += 1
                else:
                    np.testing.assert_array_equal(clip, expected(patch))
                    right += 1
            host.faults = Faults()
        return right, named

    right, named = asyncio.run(main())
    assert right + named == 5 and right >= 2


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Faults(wrong_rate=True), RecordingError, "16000 Hz, but 8000 Hz"),
        (Faults(short_file=True), RecordingError, "4000 are wanted"),
        (Faults(no_file=True), RecordingError, "cannot be read"),
        (Faults(never_ends=True), RecordingError, "did not end"),
    ],
    ids=["wrong rate", "short file", "no file", "never ends"],
)
def test_a_bad_recording_is_named(fault, error, words, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "FILE_WITHIN_S", 0.1)
    monkeypatch.setattr(recorder, "SLACK_S", 0.0)
    host = FakeHost(tmp_path)

    async def main():
        async with await opened(host) as live:
            host.faults = fault
            with pytest.raises(error, match=words):
                await live.render(0, patches(1)[0])
            host.faults = Faults()
            return await live.render(0, patches(2)[1])  # the next take on the same lane is right again

    np.testing.assert_array_equal(asyncio.run(main()), expected(patches(2)[1]))


def test_a_host_that_falls_silent_is_named_with_the_time(tmp_path):
    host = FakeHost(tmp_path)

    async def main():
        live = await opened(host)
        host.faults.dead_after = 0
        with pytest.raises(HostTimeout, match="did not answer|said nothing"):
            await live.render(0, patches(1)[0])
        live.abandon()

    asyncio.run(main())


def test_a_track_that_the_user_deletes_is_named(tmp_path):
    host = FakeHost(tmp_path)

    async def main():
        async with await opened(host) as live:
            await live.render(0, patches(1)[0])
            host.tracks.pop(0)
            with pytest.raises(HostError, match="moved, renamed or deleted|tracks 3 and 4"):
                await live.render(0, patches(2)[1])

    asyncio.run(main())


def test_a_value_that_does_not_stay_is_named(tmp_path, monkeypatch):
    host = FakeHost(tmp_path)

    async def main():
        async with await opened(host) as live:
            monkeypatch.setattr(host, "on_device_set_parameter_value", lambda *_: None)
            with pytest.raises(ReadbackMismatch, match="was set to .* reads back as"):
                await live.render(0, patches(1)[0])

    asyncio.run(main())


def test_without_the_companion_the_user_is_told_how_to_get_it(tmp_path):
    with pytest.raises(HostRefused, match="remote_script"):
        asyncio.run(opened(FakeHost(tmp_path, companion=False)))


def test_the_users_set_is_left_as_it_was(tmp_path):
    host = FakeHost(tmp_path)
    before = ([track.name for track in host.tracks], dict(host.song))

    async def main():
        async with await opened(host, lanes=2) as live:
            host.tracks.insert(0, host.tracks[0].__class__("the user's new one", False))
            assert len(host.tracks) == 7 and live.info.version == (12, 3)

    asyncio.run(main())
    assert ([track.name for track in host.tracks[1:]], host.song) == before


def test_lanes_share_ticks_so_that_eight_cost_little_more_than_one(tmp_path):
    """On a host that answers in ticks, setting up more lanes at once must not need more ticks in a row."""
    host = FakeHost(tmp_path, tick_s=0.01)

    async def main():
        async with await opened(host, lanes=4, timing=Timing(timeout_s=1.0)) as live:
            wanted = patches(4)
            lone, together = host.datagrams, 0
            await live.render(0, wanted[0])
            lone = host.datagrams - lone
            together = host.datagrams
            await asyncio.gather(*(live.render(lane, patch) for lane, patch in enumerate(wanted)))
            return lone, host.datagrams - together

    lone, together = asyncio.run(main())
    assert together < 3.5 * lone


@pytest.mark.parametrize("lanes", [1, 3])
def test_the_lanes_of_a_killed_session_are_adopted_on_request(lanes, tmp_path, monkeypatch):
    """Two were left: they are used again before new ones are made, and all go in the end; without the request none is touched."""

    async def main():
        host = FakeHost(tmp_path)
        killed = await opened(host, lanes=2)
        await killed.render(0, patches(1, seed=5)[0])
        left = [track.name for track in host.tracks]
        async with await opened(host, lanes=1):
            assert [track.name for track in host.tracks][: len(left)] == left  # not asked for
        monkeypatch.setenv("UNMIXER_LIVE_ADOPT", "1")
        async with await opened(host, lanes=lanes) as live:
            assert len(host.tracks) == 2 + 2 * max(lanes, 2)
            wanted = patches(lanes)
            clips = await asyncio.gather(*(live.render(lane, wanted[lane]) for lane in range(lanes)))
            remaining = [track.name for track in host.tracks if killed.tracks.token in track.name]
        assert [track.name for track in host.tracks] == ["1-MIDI", "2-Audio", *remaining]
        assert len(remaining) == 2 * max(0, 2 - lanes)
        return list(zip(clips, wanted, strict=True))

    for clip, patch in asyncio.run(main()):
        np.testing.assert_array_equal(clip, expected(patch))


def test_recordings_of_a_live_elsewhere_are_read_through_the_path_map(tmp_path, monkeypatch):
    """Live names a file on a disk of its own; here the same folder has another name."""

    class Elsewhere(FakeHost):
        def on_clip_get_file_path(self, track, slot):
            path = super().on_clip_get_file_path(track, slot)[2]
            return track, slot, path.replace(f"{tmp_path}/", "D:\\Sets\\")

    async def main(**options):
        async with await Session.open(
            Endpoint(), TAKE, lanes=1, transport=Elsewhere(tmp_path), timing=QUICK, **options
        ) as live:
            return await live.render(0, patches(1)[0])

    monkeypatch.setattr(recorder, "FILE_WITHIN_S", 0.05)
    with pytest.raises(RecordingError, match="if Live runs on another machine, set UNMIXER_LIVE_RECORDINGS"):
        asyncio.run(main())
    np.testing.assert_array_equal(
        asyncio.run(main(paths=recorder.PathMap.parse(f"D:\\Sets={tmp_path}"))), expected(patches(1)[0])
    )
    monkeypatch.setenv("UNMIXER_LIVE_RECORDINGS", f"D:\\Sets={tmp_path}")
    np.testing.assert_array_equal(asyncio.run(main()), expected(patches(1)[0]))
