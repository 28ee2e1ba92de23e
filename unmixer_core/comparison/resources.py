"""What the compared methods work with: the trained model, its proxy, a host, the training clips.

The stage `benchmark_itf` and `benchmarks.unmix.bars` share it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unmixer_core import config
from unmixer_core.comparison import cma_es, encoder_tuning
from unmixer_core.comparison.entry import METHODS
from unmixer_core.dataset.clips import Clips
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import finetune
from unmixer_core.inference.constraints import Constraints
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.live.host import Host
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.proxy.twin import Proxy
from unmixer_core.recording.note import RecordedNote
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.scoring import retrieval as scoring_retrieval
from unmixer_core.scoring.baselines import at_note
from unmixer_core.scoring.targets import ScoreTarget
from unmixer_core.search import search as search_search


@dataclass(frozen=True)
class BenchmarkResources:
    """What the methods call, none of which depends on how a network is built.

    propose: a target and the patches of its nearest training renders -> proposals, the network's
    point estimate first. tune: a target and the point estimate -> the tuned encoder's patch of each
    step. search: the whole `unmix` search. methods: those of METHODS that run.
    """

    host: Host
    proxy: Proxy
    propose: Callable[[ScoreTarget, list[Patch]], list[Patch]]
    tune: Callable[[ScoreTarget, Patch], list[Patch]]
    search: Callable[[ScoreTarget], cma_es.SearchResult]
    retrieval: scoring_retrieval.Retrieval
    clips: Clips
    sample_rate: int
    itf: config.Itf
    threads: int = 1
    methods: Collection[str] = METHODS

    @cached_property
    def train(self) -> Patches:
        """The training patches."""
        return self.clips.patches.select(self.clips.patches.where(split="train"))


@dataclass(frozen=True)
class BenchmarkModels:
    """The trained model and what else stays the same from clip to clip.

    notes: by a target's id, the recorded note that `unmix` searches for.
    """

    model: Unmixer
    proxy: Proxy
    frames: FeatureTable
    clips: Clips
    host: Host
    notes: Mapping[int, RecordedNote]
    itf: config.Itf
    unmix: config.Unmix
    sample_rate: int

    def resources(
        self,
        retrieval: scoring_retrieval.Retrieval,
        threads: int,
        methods: Collection[str] = METHODS,
    ) -> BenchmarkResources:
        """Return what `methods` work with, made of this model."""
        return BenchmarkResources(
            host=self.host,
            proxy=self.proxy,
            propose=self.propose,
            tune=self.tune,
            search=self.search,
            retrieval=retrieval,
            clips=self.clips,
            sample_rate=self.sample_rate,
            itf=self.itf,
            threads=threads,
            methods=methods,
        )

    def propose(self, target: ScoreTarget, neighbours: list[Patch]) -> list[Patch]:
        """Return up to `itf.proposals` of the network, the point estimate first, then `neighbours`.

        All have the target's note and gate.
        """
        note = target.patch.note
        gate_s = target.patch.gate_s
        proposals = self._posterior(target).propose(
            note, gate_s, self.itf.proposals, self.itf.seed, Constraints()
        )
        played = [at_note(patch, note, gate_s) for patch in neighbours]
        return [*proposals, *played]

    def tune(self, target: ScoreTarget, point: Patch) -> list[Patch]:
        """Return the encoder's patch before and after each of `itf.encoder_steps` steps."""
        distance = finetune.target_distance(
            self.proxy, target.audio, self.sample_rate, self.itf.clip_s
        )
        return encoder_tuning.tune(
            self.model,
            self._posterior(target).features,
            point,
            self.proxy,
            distance,
            steps=self.itf.encoder_steps,
            lr=self.itf.encoder_lr,
            clip_s=self.itf.clip_s,
        )

    def search(self, target: ScoreTarget) -> cma_es.SearchResult:
        """Run the whole `unmix` search, as the command does."""
        resources = search_search.SearchResources(
            self.model, self.proxy, self.host, self.frames, self.clips
        )
        options = search_search.SearchOptions()
        answer = search_search.Search(
            self.notes[target.id], resources, self.unmix, self.itf, options, lambda *_: None
        ).run()
        best = answer.best
        points = [(renders, seconds, mss_db) for seconds, renders, mss_db in answer.curve]
        return cma_es.SearchResult(
            patch=best.patch,
            audio=best.audio,
            mss_db=best.mss_db,
            renders=answer.renders,
            seconds=answer.seconds,
            curve=np.array(points),
        )

    def _posterior(self, target: ScoreTarget) -> PatchPosterior:
        return PatchPosterior.of(self.model, target.audio)
