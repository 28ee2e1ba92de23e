"""The contest's tools, made of the trained model, its proxy and a host.

What `benchmark_itf` and `benchmarks.unmix.bars` share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from unmixer_core import config
from unmixer_core.comparison import cma_es, encoder_tuning, methods
from unmixer_core.dataset.clips import Clips
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import finetune
from unmixer_core.inference.constraints import Constraints
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.live.host import Host
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.proxy.twin import Proxy
from unmixer_core.recording.note import RecordedNote
from unmixer_core.schema.patch import Patch
from unmixer_core.scoring import retrieval as scoring_retrieval
from unmixer_core.scoring.baselines import at_note
from unmixer_core.scoring.score import ScoreTarget
from unmixer_core.search import search as search_search


@dataclass(frozen=True)
class BenchmarkHosts:
    """Everything that stays the same from clip to clip.

    `heard`: what `unmix` is told of each target, by its id.
    """

    model: Unmixer
    proxy: Proxy
    frames: FeatureTable
    clips: Clips
    host: Host
    heard: Mapping[int, RecordedNote]
    itf: config.Itf
    unmix: config.Unmix
    rate: int

    def tools(
        self,
        retrieval: scoring_retrieval.Retrieval,
        threads: int,
        rows: Collection[str] = methods.CONTESTANTS,
    ) -> methods.BenchmarkResources:
        """What the contestants in `rows` work with."""
        return methods.BenchmarkResources(
            self.host,
            self.proxy,
            self.propose,
            self.tune,
            self.search,
            retrieval,
            self.clips,
            self.rate,
            self.itf,
            threads,
            rows,
        )

    def propose(self, target: ScoreTarget, seeds: list[Patch]) -> list[Patch]:
        """Up to `proposals` of the network, the point estimate first, then `seeds` at the
        target's note and gate.
        """
        note, gate_s = target.patch.note, target.patch.gate_s
        mine = self._ear(target).propose(
            note, gate_s, self.itf.proposals, self.itf.seed, Constraints()
        )
        return [*mine, *(at_note(patch, note, gate_s) for patch in seeds)]

    def tune(self, target: ScoreTarget, point: Patch) -> list[Patch]:
        """What the encoder answers before and after each of `encoder_steps` steps on this sound."""
        distance = finetune.target_distance(self.proxy, target.audio, self.rate, self.itf.clip_s)
        return encoder_tuning.tune(
            self.model,
            self._ear(target).features,
            point,
            self.proxy,
            distance,
            steps=self.itf.encoder_steps,
            lr=self.itf.encoder_lr,
            clip_s=self.itf.clip_s,
        )

    def search(self, target: ScoreTarget) -> cma_es.Found:
        """The whole `unmix` search, as the command runs it."""
        tools = search_search.SearchResources(
            self.model, self.proxy, self.host, self.frames, self.clips
        )
        heard = self.heard[target.id]
        found = search_search.Search(
            heard, tools, self.unmix, self.itf, search_search.SearchOptions(), lambda *_: None
        ).run()
        curve = np.array([(renders, seconds, mss_db) for seconds, renders, mss_db in found.curve])
        best = found.best
        return cma_es.Found(
            best.patch, best.audio, best.mss_db, found.renders, found.seconds, curve
        )

    def _ear(self, target: ScoreTarget) -> PatchPosterior:
        return PatchPosterior.of(self.model, target.audio)
