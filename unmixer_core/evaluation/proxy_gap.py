"""The distance of the proxy to the host on test clips.

Both render the same true patches, and are compared at the proxy's sample rate. There are two
distances: MSS, which ignores the level, and the log-mel L1, which depends on gain and panning. The
floor is the distance of two renders of one patch by the host. The ceiling is the distance of two
random clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unmixer_core import audio
from unmixer_core.audio import Clip
from unmixer_core.inference import finetune
from unmixer_core.live.host import RenderFailure
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.proxy.twin import Proxy
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring.targets import ScoreTarget

PAIRS = ("proxy", "floor", "random")
DISTANCES = {"mss_db": metrics_sound.mss, "level_db": metrics_sound.level_mel_l1_db}
COLUMNS = ["chain", *(f"{pair}_{name}" for pair in PAIRS for name in DISTANCES)]
Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Gap:
    """`rows`: a line per clip, columns COLUMNS (chain is a tuple of names.

    Nan where the host gave no second render). `sounds`: by clip id, host and proxy at `rate` Hz,
    for eyes and ears.
    """

    rows: pd.DataFrame
    sounds: Mapping[int, Mapping[str, Sound]]
    rate: int


def measure(
    proxy: Proxy,
    test: Sequence[ScoreTarget],
    again: Sequence[Clip | RenderFailure],
    sample_rate: int,
    *,
    keep: int = 0,
) -> Gap:
    """Distances on test clips.

    again: the host's second render of each (or a failure); keep: clips whose sounds are kept.
    """
    rate, lines, sounds = int(proxy.sample_rate), [], {}
    hosts = [audio.resample(target.audio, sample_rate, rate) for target in test]
    kept = (
        set(np.linspace(0, len(test) - 1, min(keep, len(test))).round().astype(int).tolist())
        if keep
        else set()
    )
    for i, (target, second) in enumerate(zip(test, again, strict=True)):
        made, host = sounded(proxy, target, sample_rate), hosts[i]
        repeated = (
            audio.resample(second, sample_rate, rate) if isinstance(second, np.ndarray) else None
        )
        others = {
            "proxy": made,
            "floor": repeated,
            "random": hosts[i - 1] if len(test) > 1 else None,
        }
        values = {
            f"{pair}_{name}": distance(other, host, rate) if other is not None else float("nan")
            for pair, other in others.items()
            for name, distance in DISTANCES.items()
        }
        lines.append({"chain": target.patch.effects, **values})
        if i in kept:
            sounds[target.id] = {"host": host, "proxy": made}
    return Gap(pd.DataFrame(lines, columns=COLUMNS), sounds, rate)


def sounded(proxy: Proxy, target: ScoreTarget, sample_rate: int) -> Sound:
    """The proxy's sound of a clip's true patch [2, time], as long as the clip."""
    with torch.no_grad():
        batch = finetune.batch([target.patch], next(proxy.parameters()).device)
        sound: Sound = (
            batch.render(proxy, batch.knobs, target.audio.shape[-1] / sample_rate)[0].cpu().numpy()
        )
    return sound


def groups(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Clips by what is reported: all, by chain length, and by effect (clips whose chain holds
    it).
    """
    lengths = rows["chain"].map(len)
    found = {"all": rows} | {f"length_{n}": rows[lengths == n] for n in sorted(lengths.unique())}
    for key, name in zip(RACK.effect_keys, RACK.effect_names, strict=True):
        found[key] = rows[rows["chain"].map(lambda chain, name=name: name in chain)]
    return {key: part for key, part in found.items() if len(part)}


def flat(gap: Gap) -> dict[str, float]:
    """Medians as metrics: `proxy_gap.mss_db`, and `proxy_gap.<group>.<pair>_<distance>` by chain
    length and device.
    """
    values: dict[str, float] = {}
    for key, part in groups(gap.rows).items():
        found = {column: float(part[column].median()) for column in COLUMNS[1:]}
        values |= {
            f"proxy_gap.{key}.{column}": value
            for column, value in found.items()
            if np.isfinite(value)
        }
    if len(gap.rows):
        values["proxy_gap.mss_db"] = float(gap.rows["proxy_mss_db"].median())
    return values


def table(gap: Gap) -> pd.DataFrame:
    """Medians a group, for people.

    Proxy, floor and random by both distances, and the proxy's share of random by MSS.
    """
    lines = {}
    for key, part in groups(gap.rows).items():
        medians = part[COLUMNS[1:]].median()
        lines[_title(key)] = {
            "n": len(part),
            **{f"MSS, {pair}": medians[f"{pair}_mss_db"] for pair in PAIRS},
            "of random": medians["proxy_mss_db"] / medians["random_mss_db"],
            "worst tenth": part["proxy_mss_db"].quantile(0.9),
            **{f"log-mel L1, {pair}": medians[f"{pair}_level_db"] for pair in PAIRS},
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def _title(key: str) -> str:
    if key in RACK.effect_keys:
        return f"with {RACK.effect_names[RACK.effect_keys.index(key)]}"
    return key if key == "all" else f"{key.removeprefix('length_')} effects"
