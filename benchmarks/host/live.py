"""How long the client of a host that answers in ticks stands idle.

8 lanes on one host with AbletonOSC's 100 ms tick.

    python -m benchmarks.host.live [--lanes 8] [--patches 40] [--tick-ms 100]

Live answers ten times a second at most, so a lane needs some ticks to set a patch up and to check
it afterwards. The other lanes' recordings should fill that time. `idle` is the share of wall time,
from the first patch handed in to the last clip handed out, in which no lane records: nothing is
under way but questions that wait for a tick. A lane records from the moment its fire message is
sent until the client has read that the take has ended; `idle_strict` takes a tick off both ends, in
which the fire message, or the news of the end, may have waited for the host.

Two hosts: `live`, where a take lasts as long as it sounds (`--fault realtime`), as in Live; `fast`,
the embedded host as it is, which is done as soon as Vital is (`idle_fast`). `ticks` is the time a
lane spends on a patch beside the take, in ticks; `lanes_busy` how many lanes record on average. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.bound import held
from benchmarks.host.render import Prior, RenderedAudio
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.renderer import Renderer
from unmixer_core.live.session.recorder import Recorder
from unmixer_core.sampling import sample
from unmixer_core.schema.patch import Patch
from unmixer_core.system.json_types import Json

BARS = {"idle": ("<", 0.2)}
#: Host options: a take lasts as long as it sounds.
AS_LIVE = ("--fault", "realtime")


@dataclass
class Watch:
    """When takes were under way: (start, end) in seconds."""

    takes: list[tuple[float, float]] = field(default_factory=list)

    def covered_s(self, margin_s: float = 0.0) -> float:
        """Time in which at least one take was under way.

        `margin_s` is taken off both of its ends.
        """
        covered_s, until_s = 0.0, float("-inf")
        for start_s, end_s in sorted(
            (start_s + margin_s, end_s - margin_s) for start_s, end_s in self.takes
        ):
            covered_s += max(0.0, end_s - max(start_s, until_s))
            until_s = max(until_s, end_s)
        return covered_s

    def total_s(self) -> float:
        return sum(end_s - start_s for start_s, end_s in self.takes)


@contextmanager
def watching() -> Iterator[Watch]:
    """Notes every Recorder.capture of this process."""
    watch, capture = Watch(), Recorder.capture

    async def noted(self: Recorder, slot: tuple[int, int]) -> None:
        start_s = time.monotonic()
        await capture(self, slot)
        watch.takes.append((start_s, time.monotonic()))

    Recorder.capture = noted  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        Recorder.capture = capture  # type: ignore[method-assign]


def measure(
    patches: Sequence[Patch], lanes: int, tick_ms: float, options: Sequence[str]
) -> dict[str, float]:
    """Renders `patches` on one host. Raises RuntimeError when one is not rendered."""
    options = ["--tick-ms", f"{tick_ms:g}", *options]
    with (
        Renderer(RenderedAudio(), 1, lanes=lanes, host_options=options) as renderer,
        watching() as watch,
    ):
        start_s, used_s = time.monotonic(), time.process_time()
        results = renderer.render(patches)
        wall_s, used_s = time.monotonic() - start_s, time.process_time() - used_s
    if any(isinstance(result, RenderFailure) for result in results) or len(watch.takes) != len(
        patches
    ):
        raise RuntimeError(
            f"{len(watch.takes)} takes for {len(patches)} patches: a fault where none was asked "
            f"for."
        )
    return {
        "idle": 1.0 - watch.covered_s() / wall_s,
        "idle_strict": 1.0 - watch.covered_s(tick_ms / 1000.0) / wall_s,
        "lanes_busy": watch.total_s() / wall_s,
        "renders_per_s": len(patches) / wall_s,
        "ticks": (lanes * wall_s - watch.total_s()) / len(patches) / (tick_ms / 1000.0),
        "take_s": statistics.median(end_s - start_s for start_s, end_s in watch.takes),
        "client_cpu": used_s / wall_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--patches", type=int, default=40)
    parser.add_argument("--tick-ms", type=float, default=100.0)
    options = parser.parse_args()
    prior = Prior()
    patches = list(sample(options.patches, "full", "train", prior.seed, prior))
    live = measure(patches, options.lanes, options.tick_ms, AS_LIVE)
    fast = measure(patches, options.lanes, options.tick_ms, [])
    result: Json = {
        "idle": live["idle"],
        "idle_fast": fast["idle"],
        "live": live,
        "fast": fast,
    }
    result |= {
        "lanes": options.lanes,
        "patches": options.patches,
        "tick_ms": options.tick_ms,
        "cores": os.cpu_count(),
    }
    for name in ("live", "fast"):
        print(name, " ".join(f"{key} {value:.3f}" for key, value in result[name].items()))
    print(json.dumps(result | {"bars": held(result, BARS)}))


if __name__ == "__main__":
    main()
