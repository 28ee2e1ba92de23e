"""What a search works with: the model, the proxy, training clips where there are any, and hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unmixer_app.answer.progress import Progress
from unmixer_app.answer.request import ROOT, Request
from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.recording.sound_file import shown
from unmixer_core.system.json_types import Json, JsonView

SHIPPED_MODEL = ROOT / "models" / "pretrained"
LOCAL_MODEL = ROOT / "models" / "full"


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


def find_models(folder: Path | None = None, models: Path = ROOT / "models") -> tuple[Path, Path]:
    """Find the network's folder and the proxy's folder.

    The network is that of `folder`, else the shipped one. The proxy is in `proxy/` in or beside
    the network's folder. Raises ConfigError where there is none.
    """
    path = models / "pretrained" if folder is None else folder
    proxies = [path / "proxy", path.parent / "proxy", models / "proxy"]
    proxy = next((p for p in proxies if (p / "proxy.json").exists()), None)
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
        proxies = (path / "proxy", path.parent / "proxy")
        has_proxy = any((proxy / "proxy.json").exists() for proxy in proxies)
        if has_proxy and (path / "model.json").exists():
            return path
    raise ConfigError(
        f"there is no trained model in {shown(folder)}; run `make repro` to train one."
    )


def model_identity(folder: Path | None) -> Json:
    """Which model answers, as patch.json says it: origin, folder and digest of the weights.

    A folder outside this checkout is named by its last two parts, since the answer may be shared.
    """
    path = find_models(folder)[0].resolve()
    if path.is_relative_to(ROOT):
        name = path.relative_to(ROOT).as_posix()
    else:
        name = "/".join(path.parts[-2:])
    with (path / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = "shipped" if path == SHIPPED_MODEL else "local"
    return {"origin": origin, "folder": shown(Path(name)), "sha256": digest}


def model_sentence(identity: JsonView) -> str:
    """One line about `model_identity`."""
    return f"{identity['origin']} model, {identity['folder']}, sha256 {identity['sha256'][:12]}"
