"""Stock AbletonOSC on a template set.

The same sound as the companion's way, order by routing, choices frozen and named.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest

from tests.live.set_snapshot import snapshot
from unmixer_core.errors import (
    ChoiceFrozen,
    DeviceMissing,
    HostError,
    HostRefused,
    ReadbackMismatch,
)
from unmixer_core.live.farm.hosts import EmbeddedHost
from unmixer_core.live.osc.client import Timing
from unmixer_core.live.repeatability import compare
from unmixer_core.live.session import session as sessions
from unmixer_core.live.session.session import Session
from unmixer_core.live.session.take import Take
from unmixer_core.live.track.frozen import AMOUNTS, UNREACHABLE, FrozenTrack, named_tables
from unmixer_core.live.track.stock import CAPTURE, DEVICES, NO_INPUT, SYNTH, RoutingLane
from unmixer_core.live.track.tracks import track_names
from unmixer_core.schema.patch import Patch

pytestmark = pytest.mark.skipif(
    find_spec("vita") is None, reason="the embedded host sounds through vita"
)
TAKE = Take(44100, 0.4)
FROZEN = FrozenTrack(
    {"wavetable.osc_1_wavetable": "Basic Shapes", "wavetable.osc_2_wavetable": "Basic Shapes"}
    | {key: choice.items[0] for key, choice in UNREACHABLE.items()}
)
CHAINS = [
    (),
    ("Delay",),
    ("Saturator", "Reverb"),
    ("Reverb", "Saturator"),
    ("Compressor", "Auto Filter", "Delay"),
    ("Delay", "Auto Filter", "Compressor"),
    DEVICES[1:],
    DEVICES[:0:-1],
]


def patch_of(chain, seed):
    """A patch with random knobs that the template can sound as."""
    rng = np.random.default_rng(seed)
    patch = Patch.init(int(rng.integers(40, 70)), 0.2, list(chain))
    knobs = rng.uniform(0.2, 0.8, len(patch.knobs)).astype(np.float32)
    return FROZEN.apply(
        Patch(knobs, patch.choices, patch.chain, patch.note, patch.gate_s)
    ).with_values(
        {
            "wavetable.osc_2_on": "On",
            "wavetable.filter_1_type": "Highpass",
            "wavetable.osc_1_pos": 0.66,
        }
    )


@asynccontextmanager
async def session_on(*options, lanes=1):
    host = EmbeddedHost(TAKE.sample_rate, options)
    try:
        transport = await host.start()
        async with await Session.open(
            host.endpoint, TAKE, lanes=lanes, transport=transport, own_folder=host.recordings
        ) as session:
            yield session
    finally:
        await host.stop()


async def rendered(patches, *options, lanes=1):
    async with session_on(*options, lanes=lanes) as session:

        async def on(lane):
            return [await session.render(lane, patch) for patch in patches[lane::lanes]]

        clips = await asyncio.gather(*map(on, range(lanes)))
        return [clips[i % lanes][i // lanes] for i in range(len(patches))]


@pytest.mark.parametrize("layout", ["tracks", "compact"])
def test_it_sounds_bit_for_bit_as_with_the_companion(layout):
    patches = [patch_of(chain, seed) for seed, chain in enumerate(CHAINS)]
    companion = asyncio.run(rendered(patches))
    stock = asyncio.run(rendered(patches, "--stock", layout, lanes=2))
    for chain, ours, theirs in zip(CHAINS, stock, companion, strict=True):
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_array_equal(ours, theirs, err_msg=" > ".join(chain))
    assert all(np.abs(a - b).max() > 1e-4 for a, b in pairwise(stock))


@pytest.mark.parametrize("options", [(), ("--stock", "compact")], ids=["companion", "stock"])
def test_the_auto_filter_of_live_12_2_sounds_as_the_old_one(options):
    """All chains, most with Auto Filter somewhere.

    Float32 on two scales of frequency and drive leaves a little difference.
    """
    patches = [patch_of(chain, seed) for seed, chain in enumerate(CHAINS)]
    chosen = ["Lowpass", "Highpass", "Bandpass", "Notch"] * 2
    patches = [p.with_values({"auto_filter.filter_type": chosen[i]}) for i, p in enumerate(patches)]
    old, new = (
        asyncio.run(rendered(patches, *options, *more)) for more in ((), ("--auto-filter-2",))
    )
    for chain, ours, theirs in zip(CHAINS, new, old, strict=True):
        assert compare(ours, theirs).residual_db < -60.0, " > ".join(chain)


def test_a_companion_that_cannot_insert_uses_the_template_and_freezes_nothing(monkeypatch):
    monkeypatch.setattr(sessions, "INSERTS_SINCE", (99, 0))  # as Live 12.0 to 12.2
    patches = [
        patch_of(chain, seed).with_values(
            {
                "wavetable.osc_1_wavetable": "FM Fold",
                "wavetable.unison_mode": "Classic",
                "wavetable.lfo_1_to_osc_1_pos": 0.9,
            }
        )
        for seed, chain in enumerate(CHAINS[2:6])
    ]
    on_template = asyncio.run(rendered(patches, "--template", "compact"))
    monkeypatch.undo()
    for ours, theirs in zip(on_template, asyncio.run(rendered(patches)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Lossy:
    """A transport that loses datagrams both ways, once `loss` is set."""

    def __init__(self, inner, seed):
        self.inner, self.loss, self.random = inner, 0.0, np.random.default_rng(seed)

    def open(self, receiver):
        self.inner.open(lambda datagram: None if self._lost() else receiver(datagram))

    def send(self, datagram, port=None):
        if not self._lost():
            self.inner.send(datagram, port)

    def close(self):
        self.inner.close()

    def _lost(self):
        return self.random.uniform() < self.loss


def test_loss_ends_in_the_right_sound_or_a_named_error():
    patches = [patch_of(chain, seed) for seed, chain in enumerate(CHAINS)]

    async def main():
        host = EmbeddedHost(TAKE.sample_rate, ["--stock"])
        try:
            lossy = Lossy(await host.start(), seed=3)
            async with await Session.open(
                host.endpoint,
                TAKE,
                lanes=1,
                transport=lossy,
                timing=Timing(0.15, 4),
                own_folder=host.recordings,
            ) as session:
                whole = [await session.render(0, patch) for patch in patches]
                lossy.loss = 0.02
                right = 0
                for patch, clip in zip(patches, whole, strict=True):
                    try:
                        np.testing.assert_array_equal(await session.render(0, patch), clip)
                        right += 1
                    except HostError as error:
                        assert str(error)
                lossy.loss = 0.0
                return right
        finally:
            await host.stop()

    assert asyncio.run(main()) >= 3


def test_what_the_set_has_otherwise_is_refused_by_name_and_the_lane_goes_on():
    async def main():
        async with session_on("--stock") as session:
            assert session.frozen == FrozenTrack(FROZEN.items, named=False)
            with pytest.raises(
                ChoiceFrozen, match="osc_1_wavetable is Basic Shapes, not FM Fold.*companion"
            ):
                await session.render(
                    0, Patch.init(60, 0.1).with_values({"wavetable.osc_1_wavetable": "FM Fold"})
                )
            with pytest.raises(ChoiceFrozen, match="env_2_to_osc_1_pos"):
                await session.render(
                    0, Patch.init(60, 0.1).with_values({"wavetable.env_2_to_osc_1_pos": 0.9})
                )
            return await session.render(0, Patch.init(60, 0.1))

    assert np.abs(asyncio.run(main())).max() > 1e-3


def test_a_template_is_left_as_it_was_and_copies_go():
    async def main():
        async with session_on("--stock", lanes=1) as outer:
            await outer.tracks.delete()
            before = await snapshot(outer.client)
            outer.lanes = await outer._stock_lanes(2, None)
            assert len(await track_names(outer.client)) == len(before) + 2 * 10
            await outer.tracks.delete()
            return before, await snapshot(outer.client)

    before, after = asyncio.run(main())
    assert before == after and len(before) == 13


def test_frozen_says_what_differs_only_where_it_is_heard():
    quiet = Patch.init().with_values(
        {"wavetable.osc_2_wavetable": "Bell", "wavetable.osc_2_on": "Off"}
    )
    assert FROZEN.differences(quiet) == ()
    heard = quiet.with_values({"wavetable.osc_2_on": "On"})
    assert [d.control for d in FROZEN.differences(heard)] == ["wavetable.osc_2_wavetable"]
    assert FROZEN.differences(FROZEN.apply(heard)) == ()
    assert FROZEN.apply(heard).item("wavetable.osc_2_wavetable") == "Basic Shapes"
    assert all(FROZEN.apply(heard).knob(key) == 0.5 for key in AMOUNTS)


def test_tables_are_read_from_the_devices_name():
    assert named_tables("Wavetable") == (("Basic Shapes", "Basic Shapes"), False)
    assert named_tables("FM Fold") == (("FM Fold", "Basic Shapes"), True)
    assert named_tables("FM Fold / Bell") == (("FM Fold", "Bell"), True)
    with pytest.raises(DeviceMissing, match="'My Lead'.*called after"):
        named_tables("My Lead")


class Routes:
    """A host that keeps input routings, refuses loops as Live does, and now and then loses a
    set.
    """

    def __init__(self, seed=0, loss=0.0, stubborn=False):
        self.inputs = {i: [NO_INPUT, "Post FX"] for i in range(10)}
        self.random, self.loss, self.stubborn, self.sets = (
            np.random.default_rng(seed),
            loss,
            stubborn,
            0,
        )

    async def send(self, *messages, alone=False):
        if self.random.uniform() < self.loss or self.stubborn:
            return
        for address, (track, value) in messages:
            self.sets += 1
            which = address.endswith("channel")
            if which or value == NO_INPUT or track not in self._upstream(int(value)):
                self.inputs[track][which] = value

    async def query(self, address, track):
        if address.endswith("channel") and self.inputs[track][0] == NO_INPUT:
            raise HostRefused("there is no channel without an input.")
        return (self.inputs[track][address.endswith("channel")],)

    def _upstream(self, track):
        found = [track]
        while (name := self.inputs[found[-1]][0]) != NO_INPUT:
            found.append(int(name))
        return found


def routing_lane(host):
    nodes = (*DEVICES, CAPTURE)
    tracks = {name: i for i, name in enumerate(nodes)}
    sources = {(a, b): str(tracks[b]) for a in nodes for b in nodes}
    return RoutingLane(host, tracks, {name: name for name in nodes}, sources)


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_any_order_follows_any_other_without_a_loop_on_the_way(loss):
    async def main():
        rng = np.random.default_rng(7)
        host = Routes(loss=loss)
        lane = routing_lane(host)
        await lane.read_inputs()
        done = 0
        for _ in range(60):
            chain = [str(name) for name in rng.permutation(DEVICES[1:])[: rng.integers(0, 9)]]
            try:
                await lane.arrange(chain)
            except ReadbackMismatch:
                assert loss
                continue
            done += 1
            assert host._upstream(9)[1:] == [
                lane.tracks[name] for name in reversed([SYNTH, *chain])
            ]
            unused = [lane.tracks[name] for name in DEVICES[1:] if name not in chain]
            assert all(host.inputs[track][0] == NO_INPUT for track in unused)
        return done

    assert asyncio.run(main()) >= (60 if not loss else 40)


def test_an_order_that_stands_is_not_touched():
    async def main():
        host = Routes()
        lane = routing_lane(host)
        await lane.read_inputs()
        await lane.arrange(["Delay", "Reverb"])
        before = host.sets
        await lane.arrange(["Delay", "Reverb"])
        return host.sets - before

    assert asyncio.run(main()) == 0


def test_a_route_that_does_not_stay_is_named():
    async def main():
        lane = routing_lane(Routes(stubborn=True))
        await lane.read_inputs()
        await lane.arrange(["Delay"])

    with pytest.raises(ReadbackMismatch, match="should listen to .* but Live keeps No Input"):
        asyncio.run(main())


def test_a_track_of_the_lane_that_is_deleted_is_named():
    async def main():
        async with session_on("--stock") as session:
            await session.render(0, Patch.init(60, 0.1))
            await session.client.send(
                ("/live/song/delete_track", (session.lanes[0].place.tracks["Delay"],))
            )
            with pytest.raises(HostError, match="moved, renamed or deleted"):
                await session.render(0, Patch.init(60, 0.1, ["Delay"]))

    asyncio.run(main())


def test_without_template_or_companion_both_ways_are_told():
    async def main():
        async with session_on("--stock") as session:
            for name, index in sorted(
                (await template_tracks(session)).items(), key=lambda item: -item[1]
            ):
                if name != "Unmixer Wavetable":
                    await session.client.send(("/live/song/delete_track", (index,)))
            with pytest.raises(DeviceMissing, match=r"Delay \(Live 10.1\)"):
                await session._stock_lanes(1, None)
            (index,) = (await template_tracks(session)).values()
            await session.client.send(("/live/song/delete_track", (index,)))
            with pytest.raises(HostRefused, match="remote_script.*docs/live.md"):
                await session._stock_lanes(1, None)

    asyncio.run(main())


async def template_tracks(session):
    ours = await session.tracks.find()
    names = await track_names(session.client)
    return {
        name: i for i, name in enumerate(names) if name.startswith("Unmixer") and name not in ours
    }
