"""What all parts of one search share: the note, the resources, the options and the budget."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import torch

from unmixer_core import config
from unmixer_core.dataset.clips import Clips
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import finetune
from unmixer_core.inference.constraints import Constraints
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.live.host import Host
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.proxy.twin import Proxy
from unmixer_core.recording.note import RecordedNote


@dataclass(frozen=True)
class SearchResources:
    """The trained model, the proxy, a host, and the training set where there is one."""

    model: Unmixer
    proxy: Proxy
    host: Host
    training_features: FeatureTable | None = None
    training_clips: Clips | None = None


@dataclass(frozen=True)
class SearchOptions:
    """What the user asked for; None means the value of the settings.

    `polish_s`: seconds of the search after the first refinement, 0 = none.
    """

    candidates: int | None = None
    itf: bool = True
    fast: bool = False
    polish_s: float | None = None
    constraints: Constraints = field(default_factory=Constraints)


@dataclass(frozen=True)
class SearchContext:
    """The inputs of one search. None of them changes while it runs."""

    note: RecordedNote
    resources: SearchResources
    settings: config.Unmix
    itf: config.Itf
    options: SearchOptions
    posterior: PatchPosterior
    #: The spectral distance to the note that ITF descends.
    target_distance: finetune.Distance
    #: Candidates that are refined or ranked at the same time.
    threads: int

    @classmethod
    def of(
        cls,
        note: RecordedNote,
        resources: SearchResources,
        settings: config.Unmix,
        itf: config.Itf,
        options: SearchOptions,
    ) -> SearchContext:
        """Prepare what depends on the note; one thread where the model is on a GPU."""
        on_cpu = next(resources.model.parameters()).device.type == "cpu"
        threads = max(1, torch.get_num_threads()) if on_cpu else 1
        posterior = PatchPosterior.of(resources.model, note.clip)
        distance = finetune.target_distance(resources.proxy, note.clip, note.rate, itf.clip_s)
        return cls(note, resources, settings, itf, options, posterior, distance, threads)

    @property
    def refines(self) -> bool:
        """Whether the search uses ITF."""
        return self.options.itf and not self.options.fast


class SearchBudget:
    """The time of one search, the number of its renders, and whether it was cancelled."""

    def __init__(self, seconds: float) -> None:
        self.begun = time.perf_counter()
        #: Seconds after the beginning at which the search ends.
        self.end_s = seconds
        self.renders = 0
        self._cancelled = threading.Event()

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return time.perf_counter() - self.begun

    @property
    def spent(self) -> bool:
        """Whether the time is up."""
        return self.seconds >= self.end_s

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Cancel the search. Any thread may call this."""
        self._cancelled.set()

    def raise_if_cancelled(self) -> None:
        """Raise KeyboardInterrupt once the search was cancelled."""
        if self._cancelled.is_set():
            raise KeyboardInterrupt
