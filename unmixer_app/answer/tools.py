"""What a search works with: the model, the proxy, training clips where there are any, and hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unmixer_app.answer.progress import Progress
from unmixer_app.answer.request import ROOT, Request
from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.recording.sound_file import shown

MODELS = ("full", "pretrained")
#: What answers unless another model is asked for.
SHIPPED = ROOT / "models" / "pretrained"
#: The word of --model for the model that `make repro` trained in this checkout.
LOCAL = Path("local")


@contextmanager
def tools(request: Request, tell: Progress, hosts: int | None = None) -> Iterator[Any]:
    """Model, proxy, training features if there are any, and hosts (default.

    One per core) that start while they load.
    """
    folders = find_models(request.model)
    tell("load", None)
    from unmixer_core.live.renderer import Renderer

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
    """A function from the host to `unmixing.Tools`.

    The imports (torch) are most of the start-up.
    """
    from unmixer_core.model import checkpoint
    from unmixer_core.pipeline import machine
    from unmixer_core.proxy.proxy import RackProxy
    from unmixer_core.search import search

    device = machine.device()
    unmixer, twin = checkpoint.load(model, device).model, RackProxy.load(proxy).to(device)
    return lambda host: search.SearchResources(unmixer, twin, host, *_known(unmixer.spec))


def _known(spec: Any) -> tuple[Any, Any]:
    """The training clips' features and sounds if they are here and were made as the model wants
    them, else None.
    """
    from unmixer_core.dataset.clips import Clips
    from unmixer_core.features.store import FeatureTable

    try:
        known = FeatureTable.open(ROOT / "data" / "features")
        if known.spec != spec:
            return None, None
    except (UnmixerError, OSError, ValueError, KeyError, TypeError):
        return None, None
    try:
        clips = Clips.open(ROOT / "data" / "renders")
        return known, clips if clips.patches.id.tolist() == known.patches.id.tolist() else None
    except (UnmixerError, OSError, ValueError, KeyError, TypeError):
        return known, None


def find_models(folder: Path | None = None, models: Path | None = None) -> tuple[Path, Path]:
    """Find (network, proxy), two folders.

    `folder`: the model that was asked for; `local` is models/full of this checkout. `models`: a
    folder that holds one in full/ or pretrained/ (its proxy in proxy/), or is one itself. With
    neither: the shipped weights, whatever was trained here.

    Raises:
        ConfigError: there is none.
    """
    if folder is not None:
        names = [ROOT / "models" / "full" if folder == LOCAL else folder]
    elif models is not None:
        names = [models, *(models / name for name in MODELS)]
    else:
        names = [SHIPPED]
    for path in names:
        proxies = [path / "proxy", path.parent / "proxy", ROOT / "models" / "proxy"]
        proxy = next((p for p in proxies if (p / "proxy.json").exists()), None)
        if (path / "model.json").exists() and proxy is not None:
            return path, proxy
    looked = " or ".join(shown(path) for path in names)
    raise ConfigError(f"there is no trained model in {looked}; run `make repro` to train one.")


def model_card(folder: Path) -> dict[str, str]:
    """What patch.json says of the model that answered: kind, folder, SHA-256 of its weights."""
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    shipped = folder.resolve() == SHIPPED.resolve()
    kind = "shipped" if shipped else "local"
    return {"kind": kind, "folder": shown(folder), "sha256": digest}


def model_sentence(card: Mapping[str, str]) -> str:
    """The same in words."""
    weights = "the shipped weights" if card["kind"] == "shipped" else "local weights"
    return f"model: {weights} of {card['folder']} ({card['sha256'][:12]})"
