"""Reading tables and fitting φ, with the proxy itself (φ moved) in the host's place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.proxy.conftest import CLIP_S, RATE, batch
from unmixer_core import config, sampling
from unmixer_core.calibration import wavetables
from unmixer_core.calibration.calibrate import Calibration, phases
from unmixer_core.calibration.gap import gap_report, gap_rows, rank_agreement
from unmixer_core.calibration.material import Material
from unmixer_core.calibration.objective import fitted_parameters
from unmixer_core.errors import StageError
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.proxy.voice import FRAMES, HARMONICS
from unmixer_core.schema.patch import Patches


@pytest.fixture(scope="module")
def settings(params: config.Params) -> config.ProxyFit:
    return params.proxy.model_copy(
        update={
            "seed": 1,
            "batch": 4,
            "lr": 0.02,
            "steps_dry": 4,
            "steps_effects": 2,
            "steps_chains": 0,
            "held_out": 6,
            "n_ffts": (256, 64),
        }
    )


@pytest.fixture(scope="module")
def material(params: config.Params) -> Material:
    """Renders of a louder, differently shaped proxy."""
    drawn = [
        ("dry", "train", 8),
        ("dry", "valid", 5),
        ("nonlinear", "train", 6),
        ("full", "valid", 6),
    ]
    parts = [
        Patches.stack([sampling.draw(p, s, i, 3, params.sample) for i in range(n)], p, s)
        for p, s, n in drawn
    ]
    patches = Patches.concat(parts)
    host = RackProxy(RATE, CLIP_S)
    with torch.no_grad():
        host.voice.level.log_ratio += 0.4
        host.voice.decay_power += 1.0
        clips = host(*batch(list(patches))).numpy()
    return Material(SimpleNamespace(patches=patches, rate=RATE, audio=lambda i: clips[i]), RATE)


def nothing(values: dict[str, float], step: int) -> None:
    """A log that forgets."""


def test_calibration_comes_closer(
    material: Material, settings: config.ProxyFit, tmp_path: Path
) -> None:
    results = Calibration(RackProxy(RATE, CLIP_S), material, settings, tmp_path, nothing).run()
    assert (
        results["dry_loss"] < results["dry_loss_start"]
        and results["effects_loss"] <= results["effects_loss_start"]
    )


@pytest.mark.parametrize("death", [("dry_loss", 3), ("effects_loss", 0)])
def test_a_killed_calibration_goes_on_to_the_same_proxy(
    death: tuple[str, int],
    material: Material,
    settings: config.ProxyFit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unmixer_core.calibration.calibrate.CHECKPOINT_STEPS", 1)
    whole, resumed = RackProxy(RATE, CLIP_S), RackProxy(RATE, CLIP_S)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected = Calibration(whole, material, settings, tmp_path / "a", nothing).run()

    def dies(values: dict[str, float], step: int) -> None:
        if step == death[1] and death[0] in values:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Calibration(RackProxy(RATE, CLIP_S), material, settings, tmp_path / "b", dies).run()
    found = Calibration(resumed, material, settings, tmp_path / "b", nothing).run()
    # Not parameter by parameter: Adam turns rounding noise into steps where a parameter is not
    # heard.
    assert found == pytest.approx(expected, rel=1e-4)
    arguments = batch(list(material.clips.patches)[:6])
    with torch.no_grad():
        sounds = [proxy(*arguments) for proxy in (whole, resumed)]
    assert torch.allclose(*sounds, atol=1e-3 * float(sounds[0].abs().max()))


def test_no_clock_decides_how_many_steps_are_taken(
    material: Material, settings: config.ProxyFit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(0, 10**9, 3600))
    monkeypatch.setattr("time.monotonic", lambda: float(next(hours)))
    one_step = settings.model_copy(update={"steps_dry": 2, "steps_effects": 0})
    results = Calibration(RackProxy(RATE, CLIP_S), material, one_step, tmp_path, nothing).run()
    assert results["dry_steps"] == 2.0


def test_what_is_measured_on_the_host_is_not_fitted() -> None:
    proxy = RackProxy(RATE, CLIP_S)
    names = {name for name, _ in proxy.named_parameters()}
    measured = proxy.measured_parameters()
    assert measured == {"voice.spectra", "effects.7.early"} and measured < names
    assert {name for name, _ in fitted_parameters(proxy)} == names - measured


def test_no_clip_that_judged_the_calibration_is_reported_on(
    material: Material, settings: config.ProxyFit
) -> None:
    calibration = Calibration(RackProxy(RATE, CLIP_S), material, settings, Path("unused"), nothing)
    judges = {
        int(row) for phase in phases(material, settings) for row in calibration._judge_rows(phase)
    }
    reported = {int(row) for rows in gap_rows(material, 100, 0).values() for row in rows}
    assert judges and reported and not judges & reported
    assert judges | reported <= set(material.rows("valid", 8).tolist())


def test_gap_report_has_a_row_per_device(material: Material) -> None:
    report = gap_report(RackProxy(RATE, CLIP_S), material, 6, 0)
    assert report["dry.mss"] < report["dry.random"] and "full.random" in report
    assert all(np.isfinite(v) for v in report.values())


def test_rank_agreement_ends() -> None:
    distances = np.random.default_rng(0).random((6, 6))
    assert rank_agreement(distances, 3 * distances + 1) == pytest.approx(1.0)
    assert rank_agreement(distances, -distances) == pytest.approx(-1.0)


def test_spectrum_of_a_known_tone_is_read_back() -> None:
    rate, note = 8000, 33  # 55 Hz
    time_s = np.arange(round(wavetables.CLIP_S * rate)) / rate
    tone = 0.5 * np.cos(2 * np.pi * 55 * time_s + 0.3) + 0.1 * np.cos(
        2 * np.pi * 165 * time_s - 1.0
    )
    found = wavetables.harmonic_spectrum(np.stack([tone, tone]).astype(np.float32), rate, note)
    expected = np.zeros(HARMONICS, complex)
    expected[[0, 2]] = 0.5 * np.exp(0.3j), 0.1 * np.exp(-1.0j)
    assert np.abs(found - expected).max() < 1e-5
    with pytest.raises(StageError, match="whole periods"):
        wavetables.harmonic_spectrum(np.stack([tone, tone]).astype(np.float32), rate, 34)


def test_tables_read_from_the_proxy_are_its_own() -> None:
    proxy = RackProxy(RATE, wavetables.CLIP_S)
    patches = wavetables.table_patches(33, 2)
    with torch.no_grad():
        few = [patches[i] for i in (0, 1)]
        clips = list(proxy(*batch(few)).numpy())
        read = wavetables.spectra_from_clips(clips * 16, RATE, 33, 2, float(proxy.voice.level()))
    audible = slice(0, 60)
    assert read.shape == (16, FRAMES, HARMONICS, 2)
    assert torch.allclose(
        read[0, [0, -1], audible], proxy.voice.spectra[0, [0, -1], audible], atol=2e-3
    )
