"""Replies, errors and silence: what the client makes of them."""

from __future__ import annotations

import asyncio

import pytest

from unmixer_core.errors import HostRefused, HostTimeout
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import FENCE, Client, Timing

FAST = Timing(timeout_s=0.03, tries=3)


class Script:
    """A transport whose answers a test writes.

    `answer(address, arguments)` yields messages to be said at once.
    """

    def __init__(self, answer=None):
        self.datagrams: list[list[wire.Message]] = []
        self.answer = answer or (lambda address, arguments: [])

    def open(self, receiver):
        self.receiver, self.loop = receiver, asyncio.get_running_loop()

    def close(self):
        pass

    def say(self, address, *arguments):
        self.receiver(wire.encode(address, arguments))

    def send(self, datagram, port=None):
        messages = wire.decode(datagram)
        self.datagrams.append(messages)
        for address, arguments in messages:
            if address.startswith(FENCE):
                self.loop.call_soon(self.say, "/live/error", f"Unknown OSC address: {address}")
            for reply in self.answer(address, arguments):
                self.loop.call_soon(self.say, *reply)


def echo(address, arguments):
    return [(address, *arguments, 1.0)]


def run(scenario, answer=None, timing=FAST):
    async def main():
        script = Script(answer)
        return await scenario(Client(script, "fake:11000", timing), script)

    return asyncio.run(main())


def test_a_reply_is_matched_on_address_and_ids():
    async def scenario(client, script):
        first = asyncio.create_task(client.query("/live/device/get/name", 0, 1))
        second = asyncio.create_task(client.query("/live/device/get/name", 0, 2))
        await asyncio.sleep(0)
        script.say("/live/track/get/name", 0, 1, "another address")
        script.say("/live/device/get/name", 0, 2, "two")
        script.say("/live/device/get/name", 0, 1, "one")
        return await first, await second

    assert run(scenario) == (("one",), ("two",))


def test_questions_of_one_turn_travel_in_one_bundle():
    async def scenario(client, script):
        await asyncio.gather(*(client.query("/live/track/get/name", i) for i in range(5)))
        return script.datagrams

    assert [len(messages) for messages in run(scenario, echo)] == [5]


def test_a_lost_question_is_put_again_then_named_with_time_and_tries():
    answers = iter([[], [], [("/live/song/get/tempo", 120.0)]])

    async def third_time(client, script):
        return await client.query("/live/song/get/tempo")

    assert run(third_time, lambda *_: next(answers)) == (120.0,)
    with pytest.raises(
        HostTimeout,
        match=r"fake:11000 did not answer /live/song/get/tempo in 3 tries of 0.03 s .*AbletonOSC",
    ):
        run(third_time)


def test_a_late_reply_never_answers_the_next_question():
    """The first question is given up.

    Its answer arrives only after the value has changed and was asked for again.
    """

    async def scenario(client, script):
        with pytest.raises(HostTimeout):
            await client.query("/live/song/get/tempo")
        await client.send(("/live/song/set/tempo", (96.5,)))
        again = asyncio.create_task(client.query("/live/song/get/tempo"))
        await asyncio.sleep(0)
        script.say("/live/song/get/tempo", 120.0)  # late
        script.answer = lambda address, _: (
            [("/live/song/get/tempo", 96.5)] if address.endswith("get/tempo") else []
        )
        return await again

    assert run(scenario) == (96.5,)


def test_an_unknown_address_is_refused_at_once():
    async def scenario(client, script):
        await client.query("/live/nope", 3)

    with pytest.raises(HostRefused, match="/live/nope 3 .*Unknown OSC address"):
        run(scenario, lambda address, _: [("/live/error", f"Unknown OSC address: {address}")])


def test_an_error_belongs_to_the_question_that_stays_open():
    """In a bundle the host drops what stands behind the failing message.

    Those are put again, alone, and answered.
    """

    async def scenario(client, script):
        def answer(address, arguments):
            if script.failing:
                return []
            if arguments[0] == 99:
                script.failing = len(script.datagrams[-1]) > 1
                return [("/live/error", "Error handling OSC message: Index out of range")]
            return echo(address, arguments)

        script.failing, script.answer = False, answer
        questions = [
            asyncio.create_task(client.query("/live/track/get/mute", i)) for i in (0, 99, 2)
        ]
        await asyncio.sleep(0.002)
        script.failing = False
        return await asyncio.gather(*questions, return_exceptions=True)

    good, bad, dropped = run(scenario)
    assert (good, dropped) == ((1.0,), (1.0,))
    assert isinstance(bad, HostRefused) and "Index out of range" in str(bad)


def test_errors_that_are_not_ours_do_no_harm():
    """Somebody else's error comes before each answer of ours."""

    def answer(address, arguments):
        return [
            ("/live/error", "Error handling OSC message: not yours"),
            (address, *arguments, 1.0),
        ]

    async def scenario(client, script):
        return await asyncio.gather(*(client.query("/live/track/get/mute", i) for i in range(9)))

    assert run(scenario, answer) == [(1.0,)] * 9


def test_a_companion_error_carries_its_request():
    def answer(address, arguments):
        if arguments[2] == "Nonsense":
            return [("/unmixer/error", arguments[0], address, "Device Nonsense not found.")]
        return [(address, arguments[0], arguments[1], 3)]

    async def scenario(client, script):
        calls = (
            client.companion("/unmixer/track/insert_device", 0, name, 1)
            for name in ("Reverb", "Nonsense")
        )
        return await asyncio.gather(*calls, return_exceptions=True)

    good, bad = run(scenario, answer)
    assert (
        good == (0, 3) and isinstance(bad, HostRefused) and "Device Nonsense not found" in str(bad)
    )


def test_datagrams_in_flight_stay_below_the_window():
    async def scenario(client, script):
        for i in range(50):
            await client.send(("/live/track/set/mute", (i, 1)), alone=True)
        fences = [
            i for i, messages in enumerate(script.datagrams) if messages[0][0].startswith(FENCE)
        ]
        return max(
            b - a for a, b in zip([-1, *fences], [*fences, len(script.datagrams)], strict=True)
        )

    assert run(scenario, timing=Timing(timeout_s=0.5, window=10)) <= 10


def test_a_bundle_stays_below_the_size_that_is_cut():
    sizes = []

    async def scenario(client, script):
        send = script.send
        script.send = lambda datagram, port=None: (
            sizes.append(len(datagram)),
            send(datagram, port),
        )
        await asyncio.gather(
            *(
                client.query("/live/device/set/parameters/value", i, extra=(0.5,) * 300)
                for i in range(20)
            )
        )

    run(scenario, lambda address, arguments: [(address, arguments[0])])
    assert len(sizes) > 3 and max(sizes) < 8192


def test_garbage_is_survived():
    async def scenario(client, script):
        question = asyncio.create_task(client.query("/live/test"))
        await asyncio.sleep(0)
        for datagram in (
            b"",
            b"junk",
            b"/live/test",
            b"#bundle\x00",
            b"/live/test\x00\x00,i\x00\x00",
        ):
            script.receiver(datagram)
        script.say("/live/test", "ok")
        return await question

    assert run(scenario)[-1:] in ((), ("ok",))
