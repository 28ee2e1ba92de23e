"""The resources of a search: the model, the proxy, hosts, and the training clips if they exist."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unmixer_app.answer.request import ROOT, Request
from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.recording.sound_file import shown
from unmixer_core.system.json_types import Json, JsonView

if TYPE_CHECKING:
    from unmixer_core.dataset.clips import Clips
    from unmixer_core.features.frames import FeatureSpec
    from unmixer_core.features.store import FeatureTable
    from unmixer_core.live.renderer import Renderer
    from unmixer_core.search.candidates import ReportStep
    from unmixer_core.search.context import SearchResources

SHIPPED_MODEL = ROOT / "models" / "pretrained"
LOCAL_MODEL = ROOT / "models" / "full"


@contextmanager
def open_resources(
    request: Request, progress: ReportStep, hosts: int | None = None
) -> Iterator[SearchResources]:
    """Load the model and the proxy while `hosts` hosts start (default: one a core).

    The hosts are closed at the end of the block. Raises ConfigError when there is no model.
    """
    folders = find_models(request.model)
    progress("load", None)
    from unmixer_core.live.renderer import Renderer

    renderer = Renderer(request.params.audio, hosts)
    with ThreadPoolExecutor(1) as pool:
        starting: Future[Renderer] = pool.submit(renderer.__enter__)
        try:
            resources_of = _load(*folders)
            starting.result()
            yield resources_of(renderer)
        finally:
            if starting.exception() is None:
                renderer.close()


def _load(model: Path, proxy: Path) -> Callable[[Renderer], SearchResources]:
    """Load model and proxy; return a function from the host to the resources."""
    # here and not at the top of the file: to import torch takes most of the start-up
    from unmixer_core.model import checkpoint
    from unmixer_core.pipeline import machine
    from unmixer_core.proxy.proxy import RackProxy
    from unmixer_core.search.context import SearchResources

    device = machine.device()
    unmixer = checkpoint.load(model, device).model
    rack_proxy = RackProxy.load(proxy).to(device)

    def resources_of(host: Renderer) -> SearchResources:
        features, clips = _training_set(unmixer.spec)
        return SearchResources(unmixer, rack_proxy, host, features, clips)

    return resources_of


def _training_set(spec: FeatureSpec) -> tuple[FeatureTable | None, Clips | None]:
    """Open the training clips' features and sounds, where they exist and fit the model."""
    from unmixer_core.dataset.clips import Clips
    from unmixer_core.features.store import FeatureTable

    try:
        features = FeatureTable.open(ROOT / "data" / "features")
        if features.spec != spec:
            return None, None
    except (UnmixerError, OSError, ValueError, KeyError, TypeError):
        return None, None
    try:
        clips = Clips.open(ROOT / "data" / "renders")
        if clips.patches.id.tolist() != features.patches.id.tolist():
            return features, None
        return features, clips
    except (UnmixerError, OSError, ValueError, KeyError, TypeError):
        return features, None


def find_models(folder: Path | None = None, models: Path = ROOT / "models") -> tuple[Path, Path]:
    """Find the network's folder and the proxy's folder.

    The network is that of `folder`, else the shipped one. The proxy is in `proxy/` in or beside
    the network's folder. Raises ConfigError where there is none.
    """
    path = models / "pretrained" if folder is None else folder
    proxy = _first_proxy(path / "proxy", path.parent / "proxy", models / "proxy")
    if not (path / "model.json").exists() or proxy is None:
        raise ConfigError(
            f"there is no trained model in {shown(path)}; run `make repro` to train one."
        )
    return path, proxy


def service_model(folder: Path) -> Path:
    """The network's folder that UNMIXER_SERVE_MODELS asks for: `folder`, its full/ or pretrained/.

    full/ counts only where it has a proxy. Raises ConfigError where there is none.
    """
    for path in (folder, folder / "full", folder / "pretrained"):
        proxy = _first_proxy(path / "proxy", path.parent / "proxy")
        if proxy is not None and (path / "model.json").exists():
            return path
    raise ConfigError(
        f"there is no trained model in {shown(folder)}; run `make repro` to train one."
    )


def _first_proxy(*folders: Path) -> Path | None:
    return next((folder for folder in folders if (folder / "proxy.json").exists()), None)


@cache
def _weights_digest(path: Path) -> str:
    """SHA-256 of a file, read once a process: each answer names it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_identity(folder: Path | None) -> Json:
    """Which model answers, as patch.json says it: origin, folder and digest of the weights.

    A folder outside this checkout is named by its last two parts, since the answer may be shared.
    """
    path = find_models(folder)[0].resolve()
    if path.is_relative_to(ROOT):
        name = path.relative_to(ROOT).as_posix()
    else:
        name = "/".join(path.parts[-2:])
    digest = _weights_digest(path / "model.safetensors")
    origin = "shipped" if path == SHIPPED_MODEL else "local"
    return {"origin": origin, "folder": shown(Path(name)), "sha256": digest}


def model_sentence(identity: JsonView) -> str:
    """One line about `model_identity`."""
    return f"{identity['origin']} model, {identity['folder']}, sha256 {identity['sha256'][:12]}"
