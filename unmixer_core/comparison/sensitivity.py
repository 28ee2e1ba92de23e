"""How much ITF depends on its steps, its learning rate and its anchor lambda_B.

One of them moved at a time.

For every clip the candidate that the proxy ranks first is refined once per setting; the host
renders what comes out, and the better of it and of the unrefined candidate counts, as everywhere.
What is compared with is the section's own setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unmixer_core import config
from unmixer_core.inference import finetune
from unmixer_core.live.host import Host
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.proxy.twin import Proxy
from unmixer_core.schema.patch import Patch
from unmixer_core.scoring.score import ScoreTarget

MOVED = ("steps", "lr", "lambda_b")


@dataclass(frozen=True)
class Moved:
    """The `itf` section with one value replaced, and which one."""

    name: str
    value: float
    itf: config.Itf


def settings(itf: config.Itf) -> Iterator[Moved]:
    """The section's own values and those to try, each setting by itself, in rising order."""
    for name in MOVED:
        for value in sorted({getattr(itf, name), *getattr(itf, f"try_{name}")}):
            yield Moved(name, float(value), itf.model_copy(update={name: value}))


def measure(
    renderer: Host,
    proxy: Proxy,
    targets: Sequence[tuple[ScoreTarget, Patch]],
    itf: config.Itf,
    rate: int,
    threads: int,
) -> pd.DataFrame:
    """Rows id, setting, value, own (whether it is the section's), before_db, refined_db (host's
    MSS; nan: no render), mss_db (the better of both). targets: each with its candidate.
    """
    moved = list(settings(itf))
    lines = []
    for target, patch in targets:

        def refined(one: Moved, target: ScoreTarget = target, patch: Patch = patch) -> Patch:
            return finetune.refine(proxy, target.audio, [patch], one.itf, sample_rate=rate)[0].patch

        with (
            finetune.frozen(proxy),
            finetune.one_thread_each(),
            ThreadPoolExecutor(max(1, threads)) as pool,
        ):
            patches = list(pool.map(refined, moved))
        before_db, *found_db = _heard_db(renderer, target, [patch, *patches], rate)
        lines += [
            {
                "id": target.id,
                "setting": one.name,
                "value": one.value,
                "own": one.value == float(getattr(itf, one.name)),
                "before_db": before_db,
                "refined_db": found,
                "mss_db": np.nanmin([before_db, found]),
            }
            for one, found in zip(moved, found_db, strict=True)
        ]
    return pd.DataFrame(lines)


def _heard_db(
    renderer: Host, target: ScoreTarget, patches: Sequence[Patch], rate: int
) -> list[float]:
    return [
        float(metrics_sound.mss(sound, target.audio, rate))
        if isinstance(sound, np.ndarray)
        else float("nan")
        for sound in renderer.render(list(patches))
    ]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over clips, a line per setting and value.

    Before, refined, the better of both, share of clips improved.
    """
    improved = (
        (rows["refined_db"] < rows["before_db"]).groupby([rows["setting"], rows["value"]]).mean()
    )
    medians = rows.groupby(["setting", "value"])[["before_db", "refined_db", "mss_db"]].median()
    found = medians.assign(share_improved=improved)
    found.index = [f"{name} = {value:g}" for name, value in found.index]
    return found
