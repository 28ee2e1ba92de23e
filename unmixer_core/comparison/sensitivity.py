"""Sensitivity of ITF to its steps, its learning rate and its anchor lambda_B, one at a time.

For every clip the candidate that the proxy ranks first is refined once per setting. The host
renders the result. As in the comparison, the better of the refined and the unrefined candidate
counts. The setting to compare with is the section's own.
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
from unmixer_core.scoring.targets import ScoreTarget

#: Settings that are varied; the values to try are in `itf.try_<name>`.
VARIED = ("steps", "lr", "lambda_b")


@dataclass(frozen=True)
class Variant:
    """The `itf` section with the setting `name` at `value`."""

    name: str
    value: float
    itf: config.Itf


def variants(itf: config.Itf) -> Iterator[Variant]:
    """Vary each setting by itself, over its own value and those to try, in rising order."""
    for name in VARIED:
        values = {getattr(itf, name), *getattr(itf, f"try_{name}")}
        for value in sorted(values):
            yield Variant(name, float(value), itf.model_copy(update={name: value}))


def measure(
    host: Host,
    proxy: Proxy,
    candidates: Sequence[tuple[ScoreTarget, Patch]],
    itf: config.Itf,
    sample_rate: int,
    threads: int,
) -> pd.DataFrame:
    """Refine each target's candidate once per variant and measure the host's render.

    Columns: id, setting, value; own: whether the value is the section's; before_db, refined_db: MSS
    (nan: no render); mss_db: the better of both.
    """
    tried = list(variants(itf))
    rows = []
    for target, patch in candidates:
        refined = _refined(proxy, target, patch, tried, sample_rate, threads)
        before_db, *refined_db = _mss_db(host, target, [patch, *refined], sample_rate)
        for variant, after_db in zip(tried, refined_db, strict=True):
            row = {
                "id": target.id,
                "setting": variant.name,
                "value": variant.value,
                "own": variant.value == float(getattr(itf, variant.name)),
                "before_db": before_db,
                "refined_db": after_db,
                "mss_db": np.nanmin([before_db, after_db]),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return medians over clips, a line per setting and value, of what `measure` returns.

    Columns: before_db, refined_db, mss_db, share_improved (of the clips).
    """
    improved = rows["refined_db"] < rows["before_db"]
    share_improved = improved.groupby([rows["setting"], rows["value"]]).mean()
    medians = rows.groupby(["setting", "value"])[["before_db", "refined_db", "mss_db"]].median()
    lines = medians.assign(share_improved=share_improved)
    lines.index = [f"{name} = {value:g}" for name, value in lines.index]
    return lines


def _refined(
    proxy: Proxy,
    target: ScoreTarget,
    patch: Patch,
    tried: Sequence[Variant],
    sample_rate: int,
    threads: int,
) -> list[Patch]:
    """One candidate, refined by each variant, in parallel."""

    def refine(variant: Variant) -> Patch:
        results = finetune.refine(
            proxy, target.audio, [patch], variant.itf, sample_rate=sample_rate
        )
        return results[0].patch

    with (
        finetune.frozen(proxy),
        finetune.one_thread_each(),
        ThreadPoolExecutor(max(1, threads)) as pool,
    ):
        return list(pool.map(refine, tried))


def _mss_db(
    host: Host, target: ScoreTarget, patches: Sequence[Patch], sample_rate: int
) -> list[float]:
    """MSS of each patch's render to the target; nan where there is no render."""
    distances = []
    for sound in host.render(list(patches)):
        if isinstance(sound, np.ndarray):
            distances.append(float(metrics_sound.mss(sound, target.audio, sample_rate)))
        else:
            distances.append(float("nan"))
    return distances
