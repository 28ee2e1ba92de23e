"""`python -m unmixer_core.live.ray.driver`: the process that speaks with Ray for ray_engine.py.

The only one to import Ray.

Messages come on standard input and go to standard output, each a size and a pickle: (number,
method, arguments) in, (number, "done" | "failed" | "lost", value) out. It ends when standard input
does, and Ray's actors end with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from unmixer_core.errors import HostDied, HostError
from unmixer_core.live.farm.host_list import HostSpec
from unmixer_core.live.ray.actor import HostActor
from unmixer_core.live.ray.engine import HEADER_BYTES, START_HEAD, packed
from unmixer_core.live.session.take import Take
from unmixer_core.system.json_types import Json

PLACED_WITHIN_S = 60.0
TOKEN = "; where its head asks for a token, ~/.ray/auth_token here must be the head's"
#: Ray gives its own processes half a minute to start, which a busy machine may not keep.
START_TRIES = 3
#: Of our environment, what an actor on another machine should have as well.
OPTIONS = ("UNMIXER_OSC_TIMEOUT_S", "UNMIXER_TRACE")


class Driver:
    """Creates an actor per host when it is first spoken to, and carries questions and answers."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._actors: dict[int, Any] = {}
        self._pids: dict[int, int] = {}
        self._take: Take | None = None
        self._trace: Path | None = None

    async def answer(self, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            kind, value = await self._do(method, *arguments)
        except HostError as error:
            kind, value = "failed", error
        except asyncio.CancelledError:
            return
        self._out.write(packed((number, kind, value)))
        self._out.flush()

    async def _do(self, method: str, *arguments: Any) -> tuple[str, Any]:
        if method == "connect":
            return "done", self._connect(*arguments)
        index, spec, *rest = arguments
        try:
            if method == "open":
                await self._place(index, spec)
            return await getattr(self._actors[index], method).remote(*rest)
        except (RayActorError, KeyError) as error:
            reason = " ".join(str(error).split()).rstrip(".")[-200:]
            return "lost", HostDied(
                f"the Ray actor of {spec.name} (process {self._pids.get(index, 0)}) died, and is "
                f"started again ({reason})."
            )
        except RayError as error:
            return "lost", HostDied(
                f"Ray failed for {spec.name}: {' '.join(str(error).split())[-300:]}."
            )

    def _connect(self, address: str, take: Take, trace: Path | None) -> int:
        """Joins the cluster, or starts one here; the number of its cores."""
        self._take, self._trace = take, trace
        options = (
            {"address": address}
            if address
            else {"num_cpus": os.cpu_count(), "include_dashboard": False}
        )
        for tries_left in reversed(range(1 if address else START_TRIES)):
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
                break
            except (
                Exception
            ) as error:  # Ray raises ConnectionError, RuntimeError, ValueError, … here
                ray.shutdown()
                if not tries_left:
                    reason = " ".join(str(error).split()).rstrip(".")
                    raise HostError(
                        f"Ray{f' at {address}' if address else ''} did not start: {reason}; "
                        f"{START_HEAD}{TOKEN if address else ''}."
                    ) from error
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    async def _place(self, index: int, spec: HostSpec) -> None:
        """An actor that is alive, known by its process id.

        Raises HostError when no node has room for it.
        """
        if index not in self._actors:
            self._actors[index] = self._create(spec)
        try:
            self._pids[index] = await asyncio.wait_for(
                _value(self._actors[index].pid.remote()), PLACED_WITHIN_S
            )
        except (TimeoutError, GetTimeoutError) as error:
            ray.kill(self._actors.pop(index))
            raise HostError(
                f"no node of the Ray cluster took {spec.name} within {PLACED_WITHIN_S:.0f} s: it "
                f"has "
                f"{ray.cluster_resources().get('CPU', 0):.0f} cores, one per embedded host; name "
                f"fewer hosts or add a node."
            ) from error

    def _create(self, spec: HostSpec) -> Any:
        options: Json = {
            "num_cpus": 0 if spec.live else 1,
            "max_restarts": -1,
            "max_task_retries": 0,
        }
        if spec.node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(
                _node_id(spec), soft=False
            )
        if passed := {name: os.environ[name] for name in OPTIONS if os.environ.get(name)}:
            options["runtime_env"] = {"env_vars": passed}
        return ray.remote(HostActor).options(**options).remote(spec, self._take, self._trace)


async def _value(reference: Any) -> Any:
    return await reference


def _node_id(spec: HostSpec) -> str:
    """Of the node whose address or name the spec gives.

    Raises HostError that lists those there are.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    for node in alive:
        if spec.node in (node["NodeManagerAddress"], node["NodeManagerHostname"], node["NodeID"]):
            return str(node["NodeID"])
    known = ", ".join(
        f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in alive
    )
    raise HostError(
        f"{spec.name} should be on the Ray node {spec.node!r}, but the cluster has {known}: run "
        f"`ray start` there."
    )


async def serve(out: BinaryIO) -> None:
    """Until standard input ends."""
    driver, tasks = Driver(out), dict[int, asyncio.Task[None]]()
    source = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(source), sys.stdin
    )
    while True:
        try:
            size = int.from_bytes(await source.readexactly(HEADER_BYTES), "big")
            number, method, arguments = pickle.loads(await source.readexactly(size))
        except asyncio.IncompleteReadError:
            break
        if method == "cancel":
            if number in tasks:
                tasks[number].cancel()
            continue
        tasks[number] = asyncio.create_task(driver.answer(number, method, arguments))
        tasks[number].add_done_callback(partial(_forget, tasks, number))
    for task in list(tasks.values()):
        task.cancel()
    ray.shutdown()


def _forget(tasks: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    tasks.pop(number, None)


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Ray prints must not get between the messages
    asyncio.run(serve(out))


if __name__ == "__main__":
    main()
