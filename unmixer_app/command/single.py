"""One sound: listen, search, write the answer's folder.

Also a patch to a sound, and a patch to Live.
"""

from __future__ import annotations

import math
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from unmixer_app.answer import folder as answer_folder
from unmixer_app.answer.progress import ProgressLine
from unmixer_app.answer.request import ROOT, Request
from unmixer_app.answer.resources import find_models, model_identity, model_sentence, open_resources
from unmixer_core import config
from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.recording import note as recording_note
from unmixer_core.recording.sound_file import shown
from unmixer_core.system.json_types import Json

if TYPE_CHECKING:
    from unmixer_core.audio import Clip
    from unmixer_core.live.push import PushReport
    from unmixer_core.search.context import SearchResources

DEFAULT_OUT = Path("unmixed")
FLOAT_FORMATS = (".wav", ".aiff")


def run(path: Path, out: Path | None, request: Request) -> Json:
    """Un-mix one file into `out` (default: unmixed/<name>); returns patch.json's content."""
    progress = ProgressLine(path.name)
    # a file without a note is refused before anything is started
    note = request.detect_note(path)
    for remark in note.remarks:
        progress.done(remark)
    find_models(request.model)
    folder = place(path, out)
    # a folder that cannot be written is refused before the search
    answer_folder.claim(folder, path)
    progress.done(model_sentence(model_identity(request.model)))
    with open_resources(request, progress) as resources:
        return answer(path, note, folder, request, resources, progress)


def place(path: Path, out: Path | None) -> Path:
    """The folder of a sound's answer."""
    return out or DEFAULT_OUT / path.stem


def answer(
    path: Path,
    note: recording_note.RecordedNote,
    out: Path,
    request: Request,
    resources: SearchResources,
    progress: ProgressLine,
) -> Json:
    """Search and write the answer into `out`; return patch.json's content.

    Ctrl-C ends the search early. The best candidate so far is then the answer.
    """
    from unmixer_app.answer import write
    from unmixer_core.search import search

    begun = time.perf_counter()
    itf = request.params.itf
    if request.itf_steps is not None:
        itf = itf.model_copy(update={"steps": request.itf_steps})
    options = search.SearchOptions(
        request.candidates, request.itf, request.fast, request.polish_s, request.constraints
    )
    found = search.Search(note, resources, request.params.unmix, itf, options, progress).run()
    document = write.write(out, path.name, note, found, request, begun)
    percent = document["similarity"]["percent"]
    seconds = document["seconds"]
    words = " > ".join(document["chain"]) or "no effects"
    stopped = " (stopped early)" if found.interrupted or found.failure else ""
    progress.done(
        f"{percent:.0f} % similar, {found.best.mss_db:.2f} dB: {words}, {seconds:.1f} s{stopped} "
        f"-> {shown(out)}"
    )
    for line in (found.failure, document["verdict"]):
        if line:
            progress.done(line)
    return document


def render(patch_path: Path, out: Path, trace: Path | None = None) -> None:
    """Render a patch file to a sound file. `trace`: a file for every OSC datagram."""
    from unmixer_app.answer import patch_file
    from unmixer_core.live.host import RenderFailure
    from unmixer_core.live.renderer import Renderer

    patch = patch_file.read(patch_path)
    if out.suffix.lower().lstrip(".") not in ("wav", "flac", "ogg", "aiff", "aif"):
        raise ConfigError(f"{shown(out)} must end in .wav, .flac, .ogg or .aiff.")
    params = config.load(ROOT / "params.yaml")
    with Renderer(params.audio, 1, trace=trace) as host:
        sound = host.render([patch])[0]
    if isinstance(sound, RenderFailure):
        raise UnmixerError(f"{sound}")
    path = out if out.suffix != ".aif" else out.with_suffix(".aiff")
    if remark := save(path, sound, params.audio.sample_rate):
        ProgressLine(patch_path.name).done(remark)


def pushed(folder: Path, progress: ProgressLine) -> None:
    """Push an answer into Live and print what was set.

    Raises UnmixerError. Its sentence names the command that tries the push again.
    """
    try:
        progress.done(str(push(folder / "patch.json")))
    except UnmixerError as error:
        again = f"`unmix push {shown(folder / 'patch.json')}` tries again"
        raise UnmixerError(
            f"the answer is not in Live: {str(error).rstrip('.')}; {again}."
        ) from error


def save(path: Path, sound: Clip, rate: int) -> str:
    """Write a sound, float32 [2, samples], without clipping; return a remark or "".

    WAV and AIFF hold 32-bit floats. Another format gets a quieter sound where it would clip. The
    remark says how much quieter.
    """
    from unmixer_core import audio
    from unmixer_core.recording import sound_file

    if path.suffix.lower() in FLOAT_FORMATS:
        sound_file.write(path, sound, rate, "FLOAT")
        return ""
    peak = max(1.0, audio.peak(sound))
    sound_file.write(path, sound / peak, rate)
    if peak == 1.0:
        return ""
    quieter_db = 20.0 * math.log10(peak)
    return (
        f"{shown(Path(path.name))} is {quieter_db:.1f} dB quieter than the patch, which this "
        f"format would clip; .wav keeps it."
    )


def push(patch_path: Path, *, adapt: bool = False, trace: Path | None = None) -> PushReport:
    """Push a patch file into Live; return the report of what was set.

    `adapt`: leave and report what stock AbletonOSC cannot set.
    """
    from unmixer_app.answer import patch_file

    patch = patch_file.read(patch_path)
    try:
        module = import_module("unmixer_core.live.push")
    except ModuleNotFoundError:
        raise UnmixerError(
            "this version cannot push patches into Live yet; open the .vital preset instead."
        ) from None
    name = patch_path.stem if patch_path.stem != "patch" else patch_path.resolve().parent.name
    return module.push(patch, name=name, adapt=adapt, trace=trace)
