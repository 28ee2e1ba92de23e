"""One sound: listen, search, write the answer's folder. Also a patch to a sound, and a patch to Live."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from app import answer_folder
from app.progress import Progress
from unmixer_core import config, listening
from unmixer_core.constraints import Constraints
from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.sound_file import shown

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("full", "pretrained")
DEFAULT_OUT = Path("unmixed")
FLOAT_FORMATS = (".wav", ".aiff")


@dataclass(frozen=True)
class Request:
    """What was asked for, checked, and the parameters it is answered with."""

    note: int | None
    gate_s: float | None
    candidates: int | None
    itf_steps: int | None
    itf: bool
    fast: bool
    polish_s: float | None
    constraints: Constraints
    push: bool
    json: bool
    model: Path | None
    params: config.Params

    @classmethod
    def of(cls, o: argparse.Namespace) -> Request:
        """From parsed arguments. Raises ConfigError."""
        constraints = Constraints.parse(o.lock, o.chain)
        return cls(
            o.note, o.gate, o.candidates, o.itf_steps, not o.no_itf, o.fast, o.polish, constraints, o.push, o.json,
            o.model, config.load(ROOT / "params.yaml"),
        )  # fmt: skip

    def listen(self, path: Path) -> listening.Heard:
        """The note of a file, at the clips' rate and length."""
        audio, sample = self.params.audio, self.params.sample
        return listening.listen(
            path, rate=audio.sample_rate, clip_s=audio.clip_s, note_range=(sample.note_low, sample.note_high),
            note=self.note, gate_s=self.gate_s,
        )  # fmt: skip


def run(path: Path, out: Path | None, request: Request) -> dict[str, Any]:
    """Un-mix one file into `out` (default: unmixed/<name>); returns patch.json's content."""
    tell = Progress(path.name)
    heard = request.listen(path)  # a bad file is refused before anything is started
    for remark in heard.remarks:
        tell.done(remark)
    find_models(request.model)
    folder = place(path, out)
    answer_folder.claim(folder, path)  # a folder that cannot be written is refused before the search
    with tools(request, tell) as ready:
        return answer(path, heard, folder, request, ready, tell)


def place(path: Path, out: Path | None) -> Path:
    """The folder of a sound's answer."""
    return out or DEFAULT_OUT / path.stem


@contextmanager
def tools(request: Request, tell: Progress, hosts: int | None = None) -> Iterator[Any]:
    """Model, proxy, training features if there are any, and hosts (default: one per core) that start while they load."""
    folders = find_models(request.model)
    tell("load", None)
    from unmixer_core.live.render import Renderer

    renderer = Renderer(request.params.audio, hosts)
    with ThreadPoolExecutor(1) as pool:
        starting: Future[Any] = pool.submit(renderer.__enter__)
        try:
            loaded = _load(*folders)
            starting.result()
            yield loaded(renderer)
        finally:
            if starting.exception() is None:
                renderer.close()


def _load(model: Path, proxy: Path) -> Any:
    """A function from the host to `unmixing.Tools`; the imports (torch) are most of the start-up."""
    from unmixer_core import stage, unmixing
    from unmixer_core.model import checkpoint
    from unmixer_core.proxy.proxy import Proxy

    device = stage.device()
    unmixer, twin = checkpoint.load(model, device).model, Proxy.load(proxy).to(device)
    return lambda host: unmixing.Tools(unmixer, twin, host, *_known(unmixer.spec))


def _known(spec: Any) -> tuple[Any, Any]:
    """The training clips' features and sounds if they are here and were made as the model wants them, else None."""
    from unmixer_core.audio import Clips
    from unmixer_core.features import Features

    try:
        known = Features.open(ROOT / "data" / "features")
        if known.spec != spec:
            return None, None
    except (UnmixerError, OSError, ValueError, KeyError, TypeError):
        return None, None
    try:
        clips = Clips.open(ROOT / "data" / "renders")
        return known, clips if clips.patches.id.tolist() == known.patches.id.tolist() else None
    except (UnmixerError, OSError, ValueError, KeyError, TypeError):
        return known, None


def find_models(folder: Path | None = None, models: Path = ROOT / "models") -> tuple[Path, Path]:
    """(network, proxy): models/full with models/proxy, else models/pretrained, which holds its proxy in `proxy/`; or those of
    `folder`. Raises ConfigError where there is none.
    """
    names = [folder] if folder is not None else [models / name for name in MODELS]
    for path in names:
        proxies = [path / "proxy", path.parent / "proxy", models / "proxy"]
        proxy = next((p for p in proxies if (p / "proxy.json").exists()), None)
        if (path / "model.json").exists() and proxy is not None:
            return path, proxy
    looked = " or ".join(shown(path) for path in names)
    raise ConfigError(f"there is no trained model in {looked}; run `make repro` to train one.")


def answer(
    path: Path, heard: listening.Heard, out: Path, request: Request, ready: Any, tell: Progress
) -> dict[str, Any]:
    """Search and write; the search may be cut short by Ctrl-C, its answer is written all the same."""
    from app import output
    from unmixer_core import unmixing

    begun = time.perf_counter()
    itf = request.params.itf
    if request.itf_steps is not None:
        itf = itf.model_copy(update={"steps": request.itf_steps})
    options = unmixing.Options(request.candidates, request.itf, request.fast, request.polish_s, request.constraints)
    found = unmixing.Search(heard, ready, request.params.unmix, itf, options, tell).run()
    document = output.write(out, path.name, heard, found, request, begun)
    percent, seconds = document["similarity"]["percent"], document["seconds"]
    words = " > ".join(document["chain"]) or "no effects"
    stopped = " (stopped early)" if found.interrupted or found.failure else ""
    tell.done(f"{percent:.0f} % similar, {found.best.mss_db:.2f} dB: {words}, {seconds:.1f} s{stopped} -> {shown(out)}")
    for line in (found.failure, document["verdict"]):
        if line:
            tell.done(line)
    return document


def render(patch_path: Path, out: Path, trace: Path | None = None) -> None:
    """A patch file as a sound file; `trace` gets every datagram."""
    from unmixer_core import patch_file
    from unmixer_core.live.render import Renderer, RenderFailure

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
        Progress(patch_path.name).done(remark)


def pushed(folder: Path, tell: Progress) -> None:
    """An answer into Live, which says what was set. Raises UnmixerError that names the command to try it again with."""
    try:
        tell.done(str(push(folder / "patch.json")))
    except UnmixerError as error:
        again = f"`unmix push {shown(folder / 'patch.json')}` tries again"
        raise UnmixerError(f"the answer is not in Live: {str(error).rstrip('.')}; {again}.") from error


def save(path: Path, sound: Any, rate: int) -> str:
    """float32 [2, samples] → a file without clipping: WAV and AIFF as 32-bit float; a format that has none is scaled down
    where it must be. Returns a sentence about that, or ""."""
    from unmixer_core import audio, sound_file

    if path.suffix.lower() in FLOAT_FORMATS:
        sound_file.write(path, sound, rate, "FLOAT")
        return ""
    peak = max(1.0, audio.peak(sound))
    sound_file.write(path, sound / peak, rate)
    if peak == 1.0:
        return ""
    quieter_db = 20.0 * math.log10(peak)
    return f"{shown(Path(path.name))} is {quieter_db:.1f} dB quieter than the patch, which this format would clip; .wav keeps it."


def push(patch_path: Path, *, adapt: bool = False, trace: Path | None = None) -> Any:
    """A patch file into Live; the report of what was set. `adapt`: what stock AbletonOSC cannot set is left and reported."""
    from unmixer_core import patch_file

    patch = patch_file.read(patch_path)
    try:
        module = import_module("unmixer_core.live.push")
    except ModuleNotFoundError:
        raise UnmixerError("this version cannot push patches into Live yet; open the .vital preset instead.") from None
    name = patch_path.stem if patch_path.stem != "patch" else patch_path.resolve().parent.name
    return module.push(patch, name=name, adapt=adapt, trace=trace)
