"""The one place that imports torchaudio.

`from unmixer_core.features.torchaudio_cpu import torchaudio`.

The Linux wheel of torchaudio 2.11 links against CUDA and does not load beside a CPU build of
PyTorch, although all we use of it (mel filters, spectrograms, MFCC, resampling) is Python. Where
its native library cannot load, a stand-in for `torchaudio._extension` says that there is none. Not
to be used then: lfilter under autograd (slow, and its backward fails), rnnt_loss, forced_align.
Audio files are soundfile's business.
"""

from __future__ import annotations

import sys
import types
from importlib import import_module
from typing import Any, NoReturn

import torch

EXTENSION = "torchaudio._extension"


def needs_stub() -> bool:
    """True on Linux with a PyTorch built without CUDA, as long as nobody has imported
    torchaudio's own extension.
    """
    return sys.platform == "linux" and torch.version.cuda is None and EXTENSION not in sys.modules


def extension_stub() -> types.ModuleType:
    """A module with the names torchaudio asks of its extension, and no native code behind them."""
    stub = types.ModuleType(
        EXTENSION, "No native extension: see unmixer_core.features.torchaudio_cpu."
    )
    names = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "fail_if_no_align": _without_extension,
    }
    vars(stub).update(names, _check_cuda_version=lambda: None)
    return stub


def _without_extension(function: Any) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            f"torchaudio's {function.__name__} needs native code that a CPU PyTorch cannot load"
        )

    return refuse


if needs_stub():
    sys.modules[EXTENSION] = extension_stub()
torchaudio = import_module("torchaudio")
