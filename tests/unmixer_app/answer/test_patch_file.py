from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unmixer_app.answer import patch_file, presets
from unmixer_core import config, sampling
from unmixer_core.errors import ConfigError, SchemaMismatch
from unmixer_core.live.renderer import Renderer
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema.patch import Patch


def drawn(params: config.Params, n: int) -> list[Patch]:
    return [sampling.draw("full", "train", i, 23, params.sample) for i in range(n)]


def test_a_patch_comes_back_from_its_file_with_the_same_digest(
    params: config.Params, tmp_path: Path
):
    for patch in drawn(params, 20):
        patch_file.write(tmp_path / "patch.json", patch_file.describe(patch))
        again = patch_file.read(tmp_path / "patch.json")
        assert again.digest == patch.digest and again.effects == patch.effects
        assert json.loads((tmp_path / "patch.json").read_text())["chain"] == list(patch.effects)


def wavetable(knobs: str = "", choices: str = "") -> str:
    device = f'{{"key": "wavetable", "knobs": {{{knobs}}}, "choices": {{{choices}}}}}'
    return f'{{"note": 50, "gate_s": 1, "chain": [], "devices": [{device}]}}'


NO_PATCHES = (
    "",
    "null",
    "[]",
    "3",
    "{}",
    "{",
    '"patch"',
    "[" * 100_000,
    '{"note": 1}',
    '{"note": 50, "gate_s": 1, "chain": [], "devices": 3}',
    '{"note": 50, "gate_s": 1, "chain": ["Wah"], "devices": []}',
    '{"note": 500, "gate_s": 1, "chain": [], "devices": []}',
    '{"note": 1e999, "gate_s": 1, "chain": [], "devices": []}',
    '{"note": "x", "gate_s": 1, "chain": [], "devices": []}',
    '{"note": 50, "gate_s": NaN, "chain": [], "devices": []}',
    '{"note": 50, "gate_s": -1, "chain": [], "devices": []}',
    wavetable('"osc_1_pos": {"unit": 7}'),
    wavetable('"osc_1_pos": {"unit": NaN}'),
    wavetable('"nothing": {"unit": 0}'),
    wavetable(choices='"osc_2_on": {"item": "Maybe"}'),
)


@pytest.mark.parametrize("text", NO_PATCHES, ids=range(len(NO_PATCHES)))
def test_a_file_that_is_no_patch_is_refused_in_one_sentence(tmp_path: Path, text: str):
    (tmp_path / "patch.json").write_text(text)
    with pytest.raises(ConfigError) as error:
        patch_file.read(tmp_path / "patch.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_other_bytes_folders_and_missing_files_are_refused(tmp_path: Path):
    (tmp_path / "bytes.json").write_bytes(bytes(range(256)))
    for name in ("bytes.json", "nothing.json", "."):
        with pytest.raises(ConfigError):
            patch_file.read(tmp_path / name)


def test_a_patch_of_another_schema_is_named_as_such(params: config.Params, tmp_path: Path):
    patch_file.write(
        tmp_path / "p.json", patch_file.describe(drawn(params, 1)[0]) | {"schema": "0" * 16}
    )
    with pytest.raises(SchemaMismatch):
        patch_file.read(tmp_path / "p.json")


def test_the_vital_preset_sounds_like_the_hosts_render(params: config.Params):
    """The text opened by a fresh Vital, against the same patch set over OSC."""
    vita = pytest.importorskip("vita")
    from unmixer_core.headless.sound.job import SoundJob
    from unmixer_core.headless.sound.worker import render

    patches = drawn(params, 4)
    with Renderer(params.audio, 1) as host:
        expected = host.render(patches)
    for patch, sound in zip(patches, expected, strict=True):
        assert isinstance(sound, np.ndarray)
        job = SoundJob(
            [], patch.note, params.audio.velocity / 127, 0.0, patch.gate_s, 2.0, 120.0, 44100, ""
        )
        heard = render(job, vita.Synth(), presets.text(patch))
        assert metrics_sound.mss(heard, sound) < 0.1


def test_the_vital_preset_holds_whole_wavetables(params: config.Params):
    preset = json.loads(presets.text(Patch.init(50, 0.5)))
    frames = preset["settings"]["wavetables"][0]["groups"][0]["components"][0]["keyframes"]
    assert len(frames) > 1 and preset["settings"]["osc_1_on"] == 1.0
