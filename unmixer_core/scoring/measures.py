"""The measures of a rendered sound against its target."""

from __future__ import annotations

from unmixer_core.audio import Clip, fit_length
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.scoring.targets import ScoreTarget

MEASURES = ("mss_db", "wmfcc", "sot", "rms", "level_db")
#: Whether a small or a large value is good.
BEST = {"mss_db": "min", "wmfcc": "min", "sot": "min", "rms": "max", "level_db": "min"}


def measure(sound: Clip, target: ScoreTarget, sample_rate: int, detail: bool) -> dict[str, float]:
    """Measure a rendered sound [2, time] against its target.

    `detail`: compute all measures; without it, all but MSS are NaN.
    """
    sound = fit_length(sound, target.audio.shape[-1])
    values = dict.fromkeys(MEASURES, float("nan"))
    values["mss_db"] = metrics_sound.mss_to(target.features, sound, sample_rate)
    if detail:
        values["wmfcc"] = float(metrics_sound.wmfcc(sound, target.audio, sample_rate))
        values["sot"] = float(metrics_sound.sot(sound, target.audio, sample_rate))
        values["rms"] = float(metrics_sound.rms_cosine(sound, target.audio, sample_rate))
        values["level_db"] = float(metrics_sound.level_mel_l1_db(sound, target.audio, sample_rate))
    return values
