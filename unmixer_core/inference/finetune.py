"""Inference-time finetuning (ITF): refine proposals for one sound through the frozen proxy.

    theta_final = argmin  L_spectral(G_proxy(theta), x_t)
                          + lambda_B ||logit(theta) - logit(theta_0)||^2   (spec eq. 2)

The knobs are optimised directly, in logit space, from several proposals at once. The discrete parts
of a proposal are fixed. The authors of InverSynth II moved to this variant (100 steps at 1e-2);
Barkan et al., ISMIR 2023, tune the encoder instead. A refinement under a proxy can be worse on the
host. So `verify` renders proposals and refinements and returns the one with the smallest MSS: the
result is never worse than the best proposal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmixer_core import audio as unmixer_core_audio
from unmixer_core import config
from unmixer_core.dsp import spectral
from unmixer_core.errors import HostError
from unmixer_core.inference.optimiser import LogitOptimiser, Refined
from unmixer_core.live.host import Host
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.proxy.twin import Proxy
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

#: Weight of MSS in the refined distance, per dB.
MSS_WEIGHT = 0.1
#: Weight of the multi-scale distance, which is about 1 for unlike sounds.
LINEAR_WEIGHT = 0.3
#: Predicted audio [batch, 2, time] -> distances [batch].
Distance = Callable[[Tensor], Tensor]
#: Receives the step and the best loss of each candidate.
Progress = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Verified:
    """The candidate whose render is nearest, and the MSS of all candidates.

    `mss_db`: in dB, one a candidate, nan where the host did not render it.
    """

    index: int
    patch: Patch
    audio: np.ndarray
    mss_db: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Patches as tensors, as the proxy takes them.

    knobs [batch, K] in unit terms; choices int64 [batch, C]; chain int64 [batch, 8], -1 = no
    effect; note [batch] (MIDI); gate_s [batch].
    """

    knobs: Tensor
    choices: Tensor
    chain: Tensor
    note: Tensor
    gate_s: Tensor

    def render(self, proxy: Proxy, knobs: Tensor, clip_s: float | None) -> Tensor:
        """Audio [batch, 2, time] of the discrete parts of this batch with the given knobs."""
        return proxy(knobs, self.choices, self.chain, self.note, self.gate_s, clip_s=clip_s)


def batch(patches: Sequence[Patch], device: torch.device | str = "cpu") -> Batch:
    """Stack patches into tensors on `device`."""
    knobs = np.stack([p.knobs for p in patches])
    choices = np.stack([p.choices for p in patches]).astype(np.int64)
    chain = np.stack([p.chain for p in patches]).astype(np.int64)
    return Batch(
        knobs=torch.as_tensor(knobs, dtype=torch.float32, device=device),
        choices=torch.as_tensor(choices, device=device),
        chain=torch.as_tensor(chain, device=device),
        note=torch.as_tensor([p.note for p in patches], dtype=torch.float32, device=device),
        gate_s=torch.as_tensor([p.gate_s for p in patches], dtype=torch.float32, device=device),
    )


def refine(
    proxy: Proxy,
    target_audio: np.ndarray,
    patches: Sequence[Patch],
    settings: config.Itf,
    locked: np.ndarray | None = None,
    *,
    sample_rate: int,
    sigma: np.ndarray | None = None,
    distance: Distance | None = None,
    progress: Progress | None = None,
) -> list[Refined]:
    """Refine the active, unlocked knobs of all candidates at once; return the best step of each.

    target_audio: [2, time] at `sample_rate`. locked: bool [K] or [batch, K], True = unchanged.
    sigma: [batch, K], spread of the proposal in logits, which scales the anchor. distance: used
    instead of the spectral distance to the target. A candidate whose loss or gradient is no longer
    finite stops with its best finite state (`finite` is False).
    """
    if not patches:
        return []
    with frozen(proxy):
        start = batch(patches, _device(proxy))
        measure = distance or target_distance(proxy, target_audio, sample_rate, settings.clip_s)
        optimiser = LogitOptimiser(start.knobs, _free(patches, locked), settings, sigma)
        for step in range(settings.steps + 1):
            optimiser.step(
                lambda knobs: measure(start.render(proxy, knobs, settings.clip_s)),
                last=step == settings.steps,
            )
            if progress is not None:
                progress(step, optimiser.best_loss.cpu().numpy())
    return optimiser.results(patches)


def refine_side_by_side(
    proxy: Proxy,
    target_audio: np.ndarray,
    patches: Sequence[Patch],
    settings: config.Itf,
    *,
    sample_rate: int,
    threads: int,
) -> list[Refined]:
    """`refine` with the candidates divided among `threads`.

    Candidates are independent. The proxy's many small operations gain less from two compute threads
    than from two candidates at a time.
    """
    parts = [part for part in np.array_split(np.arange(len(patches)), max(1, threads)) if len(part)]

    def refined(part: np.ndarray) -> list[Refined]:
        return refine(
            proxy, target_audio, [patches[i] for i in part], settings, sample_rate=sample_rate
        )

    with frozen(proxy), one_thread_each(), ThreadPoolExecutor(max(1, len(parts))) as pool:
        return [found for part in pool.map(refined, parts) for found in part]


def rank(
    proxy: Proxy,
    target_audio: np.ndarray,
    patches: Sequence[Patch],
    *,
    sample_rate: int,
    clip_s: float | None = None,
    distance: Distance | None = None,
) -> np.ndarray:
    """Proxy distance [batch] of each candidate to the target; inf where it is not finite.

    The distance is MSS, as on the host, unless another is given. On validation clips its rank
    correlation with the host's order of 18 candidates is .85; that of the refined distance is .43.
    """
    with torch.no_grad():
        measure = distance or mss_distance(proxy, target_audio, sample_rate, clip_s)
        start = batch(patches, _device(proxy))
        losses = measure(start.render(proxy, start.knobs, clip_s)).cpu().numpy().astype(np.float64)
    return np.where(np.isfinite(losses), losses, np.inf)


def verify(
    renderer: Host, target_audio: np.ndarray, patches: Sequence[Patch], *, sample_rate: int
) -> Verified:
    """Render every patch through the host; return the one with the smallest MSS.

    The first of equals wins, so put proposals first. Raises HostError when the host renders none.
    """
    sounds = renderer.render(list(patches))
    mss_db = np.full(len(patches), math.nan)
    for i, sound in enumerate(sounds):
        if isinstance(sound, np.ndarray):
            mss_db[i] = metrics_sound.mss(sound, target_audio, sample_rate)
    if np.isnan(mss_db).all():
        raise HostError(
            f"the host rendered none of the {len(patches)} candidates; its first answer was: "
            f"{sounds[0]}"
        )
    index = int(np.nanargmin(mss_db))
    return Verified(index, patches[index], np.asarray(sounds[index]), mss_db)


def target_distance(
    proxy: Proxy, target_audio: np.ndarray, sample_rate: int, clip_s: float | None
) -> Distance:
    """L_spectral to the target at the proxy's rate; both sounds at unit peak, so level-invariant.

    The weighted sum of two distances. MSS is the measure of the host's sounds; its floor is
    softened so that quiet bins have a gradient. The linear and logarithmic distance of mid and side
    measures stereo, and does not saturate far from the target.
    """
    rate = int(proxy.sample_rate)
    target = _as_rendered(proxy, target_audio, sample_rate, clip_s)
    levels_db = spectral.mss_spectra(spectral.mix_down(target), rate, soft_floor=True)
    spectra = spectral.prepare(target, rate)

    def distance(predicted: Tensor) -> Tensor:
        sound = unit_peak(_fit(predicted, target.shape[-1]))
        mss_db = spectral.mss(sound, levels_db, rate, soft_floor=True)
        return MSS_WEIGHT * mss_db + LINEAR_WEIGHT * spectral.multiscale_spectral(sound, spectra)

    return distance


def mss_distance(
    proxy: Proxy, target_audio: np.ndarray, sample_rate: int, clip_s: float | None
) -> Distance:
    """MSS in dB to the target at the proxy's rate, the measure of the host's sounds."""
    rate = int(proxy.sample_rate)
    target = _as_rendered(proxy, target_audio, sample_rate, clip_s)
    levels_db = spectral.mss_spectra(spectral.mix_down(target), rate, soft_floor=False)

    def distance(predicted: Tensor) -> Tensor:
        return spectral.mss(
            unit_peak(_fit(predicted, target.shape[-1])), levels_db, rate, soft_floor=False
        )

    return distance


def corrected_distances(
    proxy: Proxy,
    target_audio: np.ndarray,
    patches: Sequence[Patch],
    sounds: Sequence[np.ndarray],
    *,
    sample_rate: int,
    clip_s: float | None,
) -> Callable[[Sequence[int]], Distance]:
    """Distances to the target with a zero-order bias correction at each patch.

    sounds: the host's renders of the patches, [2, time] at `sample_rate`. The proxy's error at a
    patch, in dB of every band and frame, is subtracted everywhere. So at the patch the distance is
    the host's (at the proxy's rate), and the proxy gives only the change from there: the
    consistency condition of a search through a cheap model (space mapping; Alexandrov, Lewis,
    2001). The result takes indices into `patches`, one a row of the batch, or one for all rows.
    """
    rate = int(proxy.sample_rate)
    with torch.no_grad():
        target = _as_rendered(proxy, target_audio, sample_rate, clip_s)
        n = target.shape[-1]
        start = batch(patches, _device(proxy))
        predicted = _fit(start.render(proxy, start.knobs, clip_s), n)
        rendered = [_fit(_as_rendered(proxy, sound, sample_rate, clip_s), n) for sound in sounds]
        levels = [
            spectral.mss_spectra(spectral.mix_down(unit_peak(sound)), rate, soft_floor=True)
            for sound in (target, predicted, torch.cat(rendered))
        ]
        corrected: list[Tensor] = []
        for target_db, predicted_db, rendered_db in zip(*levels, strict=True):
            corrected.append(target_db + predicted_db - rendered_db)

    def distances(rows: Sequence[int]) -> Distance:
        row_levels = tuple(levels_db[list(rows)] for levels_db in corrected)

        def distance(predicted: Tensor) -> Tensor:
            sound = unit_peak(_fit(predicted, target.shape[-1]))
            return MSS_WEIGHT * spectral.mss(sound, row_levels, rate, soft_floor=True)

        return distance

    return distances


def _as_rendered(proxy: Proxy, audio: np.ndarray, sample_rate: int, clip_s: float | None) -> Tensor:
    """Audio [2, time] in the proxy's format: [1, 2, time] at its rate, on its device, unit peak."""
    rate = int(proxy.sample_rate)
    resampled = torch.as_tensor(
        unmixer_core_audio.resample(audio, sample_rate, rate), dtype=torch.float32
    )
    n = resampled.shape[-1] if clip_s is None else round(clip_s * rate)
    return unit_peak(_fit(resampled[None], n)).to(_device(proxy))


def _fit(audio: Tensor, n_samples: int) -> Tensor:
    """[..., time] cut or padded with silence."""
    return torch.nn.functional.pad(audio[..., :n_samples], (0, max(0, n_samples - audio.shape[-1])))


def unit_peak(audio: Tensor) -> Tensor:
    """Each clip of [batch, channel, time] divided by its own peak; silence stays silent."""
    # the lower limit of the peak keeps the division finite
    return audio / audio.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-5)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let torch use one compute thread per caller; restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def frozen(proxy: Proxy) -> Iterator[None]:
    """Put the proxy into eval mode without parameter gradients; restore both afterwards."""
    before = [(p, p.requires_grad) for p in proxy.parameters()]
    training = proxy.training
    proxy.eval()
    for parameter, _ in before:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        proxy.train(training)
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


def _free(patches: Sequence[Patch], locked: np.ndarray | None) -> np.ndarray:
    """Knobs that refinement may move: audible in the patch and not locked. bool [batch, K]."""
    choices = np.stack([p.choices for p in patches])
    chain = np.stack([p.chain for p in patches])
    active, _ = RACK.active(choices, chain)
    free = np.asarray(active, dtype=bool)
    if locked is not None:
        free = free & ~np.asarray(locked, dtype=bool)
    return free


def _device(proxy: Proxy) -> torch.device:
    return next(iter(proxy.parameters()), torch.zeros(0)).device
