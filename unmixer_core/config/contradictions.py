"""Values of params.yaml that are allowed one by one, but not together.

Each rule yields one sentence, which gives the dotted names and values of both sides.
"""

from __future__ import annotations

from collections.abc import Iterator

from unmixer_core.config.sections import Params

#: Integrated loudness (ITU-R BS.1770) is measured in blocks of 400 ms: a clip holds one at least.
LOUDNESS_BLOCK_S = 0.4
#: Sums of shares in floating point, such as 0.7 + 0.3, may pass 1 by this much.
ROUNDING = 1e-9


def contradictions(params: Params) -> Iterator[str]:
    """Yield one sentence for each pair of values that contradict each other."""
    yield from _clip(params)
    yield from _features(params)
    yield from _proxy_windows(params)
    yield from _sample(params)
    yield from _training(params)
    yield from _loss(params)
    yield from _search(params)


def _clip(params: Params) -> Iterator[str]:
    clip_s = params.audio.clip_s
    if clip_s < LOUDNESS_BLOCK_S:
        yield (
            f"audio.clip_s = {clip_s} is too short, loudness is measured in blocks of "
            f"{LOUDNESS_BLOCK_S} s"
        )
    if params.sample.gate_low_s >= clip_s:
        yield (
            f"sample.gate_low_s = {params.sample.gate_low_s} must be below "
            f"audio.clip_s = {clip_s}, or no clip holds the end of its note"
        )
    if params.itf.clip_s > clip_s:
        yield f"itf.clip_s = {params.itf.clip_s} must not be above audio.clip_s = {clip_s}"


def _features(params: Params) -> Iterator[str]:
    features = params.features
    clip_samples = round(params.audio.clip_s * params.audio.sample_rate)
    nyquist_hz = params.audio.sample_rate / 2
    bins = features.n_fft // 2 + 1
    clip = f"the {clip_samples} samples of a clip (audio.clip_s × audio.sample_rate)"
    if features.hop > clip_samples:
        yield f"features.hop = {features.hop} must not be above {clip}"
    if features.n_fft > clip_samples:
        yield f"features.n_fft = {features.n_fft} must not be above {clip}"
    if features.fmax_hz > nyquist_hz:
        yield (
            f"features.fmax_hz = {features.fmax_hz} must not be above {nyquist_hz} Hz, "
            f"half of audio.sample_rate"
        )
    if features.fmin_hz >= features.fmax_hz:
        yield (
            f"features.fmin_hz = {features.fmin_hz} must be below "
            f"features.fmax_hz = {features.fmax_hz}"
        )
    if features.n_mels > bins:
        yield (
            f"features.n_mels = {features.n_mels} must not be above the {bins} frequencies of "
            f"features.n_fft = {features.n_fft}"
        )
    if params.augment.mask_mels > features.n_mels:
        yield (
            f"augment.mask_mels = {params.augment.mask_mels} must not be above "
            f"features.n_mels = {features.n_mels}"
        )


def _proxy_windows(params: Params) -> Iterator[str]:
    # The spectral losses compare at the proxy's rate: whole clips in training, itf.clip_s in ITF.
    longest = max(params.proxy.n_ffts)
    lengths_s = {"audio.clip_s": params.audio.clip_s, "itf.clip_s": params.itf.clip_s}
    for name, length_s in lengths_s.items():
        samples = round(length_s * params.proxy.sample_rate)
        if longest > samples:
            yield (
                f"proxy.n_ffts holds {longest}, which must not be above the {samples} samples of "
                f"{name} = {length_s} at proxy.sample_rate"
            )


def _sample(params: Params) -> Iterator[str]:
    sample = params.sample
    if sum(sample.chain_length_weights) == 0.0:
        yield "sample.chain_length_weights are all zero, at least one must be above zero"
    if sample.n_test_dry + sample.n_test_nonlinear + sample.n_test_full == 0:
        yield (
            "sample.n_test_dry, sample.n_test_nonlinear and sample.n_test_full are all zero, "
            "at least one must be above zero"
        )


def _training(params: Params) -> Iterator[str]:
    train = params.train
    phases = {
        "dry": (train.dry, "dry"),
        "fx": (train.fx, "nonlinear"),
        "full": (train.full, "full"),
    }
    for phase, (settings, split) in phases.items():
        if settings.epochs + settings.proxy_epochs == 0:
            continue
        # The stage stops without either, also when all its epochs are on the proxy's clips.
        for name in (f"n_{split}", f"n_valid_{split}"):
            if getattr(params.sample, name) == 0:
                yield f"train.{phase} has epochs and needs patches, but sample.{name} = 0"


def _loss(params: Params) -> Iterator[str]:
    loss = params.loss
    weights = (loss.lambda_p, loss.lambda_c, loss.lambda_o, loss.lambda_e, loss.lambda_s)
    if sum(weights) == 0.0:
        yield (
            "loss.lambda_p, loss.lambda_c, loss.lambda_o, loss.lambda_e and loss.lambda_s are "
            "all zero, at least one must be above zero"
        )
    if loss.spectral_start + loss.spectral_ramp > 1.0 + ROUNDING:
        yield (
            f"loss.spectral_start = {loss.spectral_start} and "
            f"loss.spectral_ramp = {loss.spectral_ramp} must not come to more than 1"
        )
    if loss.temperature_end > loss.temperature_start:
        yield (
            f"loss.temperature_end = {loss.temperature_end} must not be above "
            f"loss.temperature_start = {loss.temperature_start}"
        )


def _search(params: Params) -> Iterator[str]:
    unmix = params.unmix
    if unmix.itf_seconds > unmix.seconds:
        yield (
            f"unmix.itf_seconds = {unmix.itf_seconds} must not be above "
            f"unmix.seconds = {unmix.seconds}"
        )
