"""`python -m unmixer_app.service.renderer`: a host that renders the patches of the page.

It also measures how similar a render is to a job's recording.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from unmixer_app.answer import patch_file
from unmixer_app.service import heard_file
from unmixer_core import audio, config
from unmixer_core.errors import UnmixerError
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.renderer import Renderer
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.recording import sound_file
from unmixer_core.schema.patch import Patch
from unmixer_core.search import search
from unmixer_core.system.child import ROOT, Wire
from unmixer_core.system.json_types import Json


def main() -> None:
    """Requests are {"patch", "out", "like"}.

    A patch, the sound file to write, a job's folder or null; done is {"mss_db",
    "similarity_percent"}, or {} without a job.
    """
    wire = Wire()
    try:
        params = config.load(ROOT / "params.yaml")
        with Renderer(params.audio, 1) as host:
            host.render([Patch.init()])
            wire.tell({})
            for asked in wire:
                wire.tell(_one(asked, params, host))
    except UnmixerError as error:
        wire.tell({"failed": " ".join(str(error).split())})


def _one(asked: Json, params: config.Params, host: Renderer) -> Json:
    try:
        (sound,) = host.render([patch_file.parse(asked["patch"])])
        if isinstance(sound, RenderFailure):
            return {"failed": str(sound)}
        rate, out = params.audio.sample_rate, Path(asked["out"])
        sound_file.write(out, sound, rate, "FLOAT" if audio.peak(sound) > 1.0 else "PCM_24")
        return {"done": _distance(sound, asked["like"], params) if asked["like"] else {}}
    except (UnmixerError, OSError) as error:
        return {"failed": " ".join(str(error).split())}


def _distance(sound: audio.Clip, folder: str, params: config.Params) -> dict[str, float]:
    features, length, rate = _target(folder)
    mss_db = metrics_sound.mss_to(features, audio.fit_length(sound, length), rate)
    percent = search.similarity(mss_db, params.unmix.chance_db)
    return {"mss_db": round(mss_db, 4), "similarity_percent": round(percent, 2)}


@lru_cache(maxsize=4)
def _target(folder: str) -> tuple[np.ndarray, int, int]:
    """Features, length in samples and rate of a job's recording."""
    note = heard_file.read(Path(folder))
    return metrics_sound.mss_features(note.clip, note.rate), note.clip.shape[1], note.rate


if __name__ == "__main__":
    main()
