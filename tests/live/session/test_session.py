"""A whole host in one process.

Every fault ends in the right sound or a named error, and the user's set stays as it was.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.live.fake_host import CLIP_S, RATE, VELOCITY, FakeHost, Faults, expected
from unmixer_core.errors import (
    HostError,
    HostRefused,
    HostTimeout,
    ReadbackMismatch,
    RecordingError,
)
from unmixer_core.live.osc.client import Timing
from unmixer_core.live.osc.transport import Endpoint
from unmixer_core.live.session import recorder, recordings
from unmixer_core.live.session.session import Session
from unmixer_core.live.session.take import Take
from unmixer_core.schema.patch import Patch

TAKE = Take(RATE, CLIP_S, VELOCITY)
QUICK = Timing(timeout_s=0.05, tries=4)
PATIENT = Timing(timeout_s=5.0)


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
    return await Session.open(
        Endpoint(), TAKE, lanes=lanes, transport=host, timing=timing, own_folder=host.folder
    )


def test_lanes_render_what_the_patches_say_side_by_side(tmp_path):
    async def main():
        async with await opened(FakeHost(tmp_path), lanes=3) as live:
            wanted = patches(9)
            clips = await asyncio.gather(
                *(one_lane(live, lane, wanted[lane::3]) for lane in range(3))
            )
            return [
                (clip, patch)
                for lane in range(3)
                for clip, patch in zip(clips[lane], wanted[lane::3], strict=True)
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
    monkeypatch.setattr(recordings, "FILE_WITHIN_S", 0.1)
    monkeypatch.setattr(recorder, "SLACK_S", 0.0)
    host = FakeHost(tmp_path)

    async def main():
        async with await opened(host) as live:
            host.faults = fault
            with pytest.raises(error, match=words):
                await live.render(0, patches(1)[0])
            host.faults = Faults()
            return await live.render(
                0, patches(2)[1]
            )  # the next take on the same lane is right again

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


CHANGES = [
    ("properties", "unison_mode", 1, "unison_mode was changed from 0 to 1"),
    (
        "properties",
        "oscillator_1_wavetable_index",
        7,
        "oscillator_1_wavetable_index was changed from 0 to 7",
    ),
    (
        "properties",
        "oscillator_2_wavetable_category",
        0,
        "oscillator_2_wavetable_category was changed from 1 to 0",
    ),
    (
        "properties",
        "oscillator_1_effect_mode",
        3,
        "oscillator_1_effect_mode was changed from 0 to 3",
    ),
    (
        "properties",
        "filter_routing",
        2,
        "filter_routing was changed from 0 to 2",
    ),  # no patch names it
    ("amounts", ("Osc 1 Pos", "LFO 1"), 0.5, "LFO 1 -> Osc 1 Pos was changed from 0 to 0.5"),
    (
        "amounts",
        ("Osc 1 Pos", "LFO 2"),
        -0.5,
        "LFO 2 -> Osc 1 Pos was changed from 0 to -0.5",
    ),  # nor this
]


@pytest.mark.parametrize(
    ("where", "key", "value", "words"), CHANGES, ids=[str(change[1]) for change in CHANGES]
)
def test_what_only_the_companion_reaches_is_read_again_after_each_take(
    where, key, value, words, tmp_path
):
    """Somebody turns it between two takes.

    The lane does not send what it has set before, but finds out and then does.
    """
    host = FakeHost(tmp_path)
    plain = Patch.init(50, 0.2, ["Delay"])

    async def main():
        async with await opened(host, timing=PATIENT) as live:
            await live.render(0, plain)
            getattr(host.tracks[2].devices[0], where)[key] = value
            with pytest.raises(ReadbackMismatch, match=words):
                await live.render(0, plain)
            return await live.render(0, plain)

    np.testing.assert_array_equal(asyncio.run(main()), expected(plain))


def test_the_second_look_costs_one_message_a_take(tmp_path):
    host = FakeHost(tmp_path)

    async def main():
        async with await opened(host, timing=PATIENT) as live:
            await live.render(0, patches(1)[0])
            heard = len(host.heard)
            await live.render(0, patches(1)[0])
            return {
                (address, said[:1])
                for address, said in host.heard[heard:]
                if address.startswith("/unmixer/")
            }

    assert [address for address, _ in asyncio.run(main())] == ["/unmixer/device/get_all"]


@pytest.mark.parametrize("other", [True, False], ids=["another recording", "its own"])
def test_a_recording_that_is_not_ours_is_never_deleted(other, tmp_path):
    mine = tmp_path / "my song.wav"
    soundfile.write(mine, np.zeros((9000, 2)), RATE, subtype="FLOAT")
    os.utime(mine, (1e9, 1e9))

    class Confused(FakeHost):
        def on_clip_get_file_path(self, track, slot):
            return (track, slot, str(mine)) if other else super().on_clip_get_file_path(track, slot)

    async def main():
        async with await opened(Confused(tmp_path), timing=PATIENT) as live:
            if not other:
                return await live.render(0, patches(1)[0])
            with pytest.raises(RecordingError, match="it is another recording"):
                await live.render(0, patches(1)[0])

    asyncio.run(main())
    assert mine.exists() and (other or list(tmp_path.iterdir()) == [mine])


@pytest.mark.parametrize("version", ["1.0", "0.9"])
def test_an_old_companion_is_named(version, tmp_path, monkeypatch):
    host = FakeHost(tmp_path)
    monkeypatch.setattr(host, "_companion", lambda *_: (version,))
    with pytest.raises(HostRefused, match=f"companion script {version} answers, but 1.1 is needed"):
        asyncio.run(opened(host, timing=PATIENT))


@pytest.mark.parametrize("losses", [2, 99])
def test_what_cannot_be_put_back_is_said_by_name(losses, tmp_path, monkeypatch, caplog):
    """Sets and deletions that do not arrive are repeated; what stays all the same is in the log."""
    host = FakeHost(tmp_path)
    lost: Counter[str] = Counter()

    def lose(address, right):
        def handle(*arguments):
            lost[address] += 1
            return None if lost[address] <= losses else right(*arguments)

        return handle

    async def main():
        live = await opened(host, timing=PATIENT)
        monkeypatch.setattr(host, "on_song_delete_track", lose("delete", host.on_song_delete_track))
        monkeypatch.setattr(
            host,
            "on_song_set_tempo",
            lose("tempo", lambda value: host.song.update(tempo=value)),
            raising=False,
        )
        await live.close()
        return live.tracks.token

    token = asyncio.run(main())
    if losses == 2:
        assert host.song["tempo"] == 96.0 and len(host.tracks) == 2 and not caplog.records
    else:
        assert (
            "tempo (to 96)" in caplog.text
            and f"Unmixer {token} 1, Unmixer {token} 1 capture" in caplog.text
        )


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
    """On a host that answers in ticks, setting up more lanes at once must not need more ticks in
    a row.
    """
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
    """Two were left: they are used again before new ones are made, and all go in the end.

    Without the request none is touched.
    """

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
            clips = await asyncio.gather(
                *(live.render(lane, wanted[lane]) for lane in range(lanes))
            )
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

    monkeypatch.setattr(recordings, "FILE_WITHIN_S", 0.05)
    with pytest.raises(
        RecordingError, match="if Live runs on another machine, set UNMIXER_LIVE_RECORDINGS"
    ):
        asyncio.run(main())
    np.testing.assert_array_equal(
        asyncio.run(main(paths=recordings.PathMap.parse(f"D:\\Sets={tmp_path}"))),
        expected(patches(1)[0]),
    )
    monkeypatch.setenv("UNMIXER_LIVE_RECORDINGS", f"D:\\Sets={tmp_path}")
    np.testing.assert_array_equal(asyncio.run(main()), expected(patches(1)[0]))


@pytest.mark.parametrize("finished", [False, True], ids=["during the next take", "before it"])
def test_the_file_of_a_take_that_was_given_up_is_never_taken_for_the_next_one_s(
    finished, tmp_path, monkeypatch
):
    """A slow host writes it when the client has gone on to another patch, and then names it once
    more.
    """

    class Slow(FakeHost):
        def _end(self, lane, clip, number):
            if number > 1:
                self.finish()
                super()._end(lane, clip, number)
                return
            super()._end(lane, clip, number)
            self.first, self.path, clip.path, clip.recording = clip, Path(clip.path), None, True
            self.sound = self.path.read_bytes()
            self.path.unlink()

        def finish(self):
            if self.first.recording:
                self.path.write_bytes(self.sound)
                self.first.path, self.first.recording = str(self.path), False

        def on_clip_get_file_path(self, track, slot):
            path = self.clip(track, slot).path
            return track, slot, str(self.path) if self.takes == 2 and path else path

    monkeypatch.setattr(recorder, "SLACK_S", 0.1)
    first, second = patches(2)

    async def main():
        host, said = Slow(tmp_path), []
        async with await opened(host) as live:
            with pytest.raises(RecordingError, match="did not end"):
                await live.render(0, first)
            if finished:
                host.finish()
            for _ in range(4):
                try:
                    return await live.render(0, second), said
                except RecordingError as error:
                    said.append(str(error))
                    asyncio.get_running_loop().call_later(0.05, host.finish)
                    await asyncio.sleep(0.1)

    clip, said = asyncio.run(main())
    np.testing.assert_array_equal(clip, expected(second))
    assert said and "an earlier one recorded" in said[-1]
