"""params.yaml is refused in a sentence that names the key, the value and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from unmixer_core import config
from unmixer_core.config.yaml12 import read_yaml
from unmixer_core.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]
PROFILES = sorted((REPO / "profiles").glob("*.yaml"))


@pytest.fixture
def written(tmp_path: Path):
    """Writes params.yaml with some dotted keys changed; the file's path."""

    def write(**changes: object) -> Path:
        data = config.merge(
            read_yaml(REPO / "params.yaml"),
            config.nest({k.replace("__", "."): v for k, v in changes.items()}),
        )
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return path

    return write


def test_the_committed_parameters_are_valid_and_frozen(params):
    assert params.train.dry.batch >= 1
    with pytest.raises(ValidationError):
        params.loss.lambda_s = 2.0


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("loss__lambda_s", "a lot", ["loss.lambda_s", "'a lot'", "a number ≥ 0.0"]),
        ("loss__lambda_s", -1, ["loss.lambda_s", "-1", "a number ≥ 0.0"]),
        ("loss__lambda_s", float("nan"), ["loss.lambda_s", "nan", "a number"]),
        ("loss__lamda_s", 1.0, ["loss.lamda_s", "1.0", "unknown key", "did you mean lambda_s?"]),
        ("train__dry__epochs", 2.5, ["train.dry.epochs", "2.5", "a whole number ≥ 0"]),
        ("train__dry__epochs", True, ["train.dry.epochs", "True", "a whole number ≥ 0"]),
        ("train__wet", {"epochs": 1}, ["train.wet", "unknown key", "dry, fx, full"]),
        ("optim__clip", "nrm", ["optim.clip", "'nrm'", "one of norm, element, none"]),
        ("optim__percentile", 101, ["optim.percentile", "101", "> 0.0 and ≤ 100.0", "null"]),
        ("score__coverage", [0.5, 2], ["score.coverage.1", "2", "a number > 0.0 and < 1.0"]),
        ("score__coverage", [], ["score.coverage", "[]", "at least 1 items"]),
        ("sample__note_low", 100, ["sample.note_low = 100", "note_high"]),
        ("loss", 3, ["loss", "3", "a section with lambda_p"]),
        ("loss__audio_to_chain", "on", ["loss.audio_to_chain", "'on'", "true or false"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(written, key, value, words):
    with pytest.raises(ConfigError) as caught:
        config.load(written(**{key: value}))
    assert all(word in str(caught.value) for word in ["params.yaml", *words]), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audio.clip_s": 0.3, "itf.clip_s": 0.3}, ["audio.clip_s = 0.3", "0.4 s"]),
        ({"sample.gate_low_s": 2.0, "sample.gate_high_s": 3.0}, ["sample.gate_low_s = 2.0"]),
        ({"itf.clip_s": 2.5}, ["itf.clip_s = 2.5", "audio.clip_s = 2.0"]),
        ({"features.hop": 90_000}, ["features.hop = 90000", "88200 samples"]),
        ({"audio.clip_s": 1.0, "itf.clip_s": 1.0, "features.n_fft": 65536}, ["features.n_fft"]),
        ({"features.fmax_hz": 22_051.0}, ["features.fmax_hz = 22051.0", "22050.0 Hz"]),
        ({"features.fmin_hz": 18_000.0}, ["features.fmin_hz = 18000.0", "features.fmax_hz"]),
        ({"features.n_fft": 128}, ["features.n_mels = 96", "features.n_fft = 128"]),
        ({"augment.mask_mels": 97}, ["augment.mask_mels = 97", "features.n_mels = 96"]),
        ({"itf.clip_s": 0.05}, ["proxy.n_ffts holds 2048", "itf.clip_s = 0.05"]),
        ({"sample.chain_length_weights": [0.0, 0.0]}, ["sample.chain_length_weights"]),
        (
            {f"sample.n_test_{split}": 0 for split in ("dry", "nonlinear", "full")},
            ["sample.n_test_dry", "sample.n_test_full"],
        ),
        ({"sample.n_nonlinear": 0}, ["train.fx", "sample.n_nonlinear = 0"]),
        ({"sample.n_valid_full": 0}, ["train.full", "sample.n_valid_full = 0"]),
        ({f"loss.lambda_{name}": 0.0 for name in "pcoes"}, ["loss.lambda_p", "all zero"]),
        ({"loss.spectral_start": 0.9}, ["loss.spectral_start = 0.9", "loss.spectral_ramp = 0.2"]),
        ({"loss.temperature_end": 2.0}, ["loss.temperature_end = 2.0", "loss.temperature_start"]),
        ({"unmix.itf_seconds": 45.0}, ["unmix.itf_seconds = 45.0", "unmix.seconds = 44.0"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values_that_contradict_each_other_are_named_in_one_sentence(params, changes, words):
    with pytest.raises(ConfigError) as caught:
        config.with_values(params, changes)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert ";" not in message and "\n" not in message


def test_shares_may_come_to_exactly_one(params):
    changes = {"loss.spectral_start": 0.7, "loss.spectral_ramp": 0.3}
    assert config.with_values(params, changes).loss.spectral_ramp == 0.3


def test_a_missing_key_says_what_belongs_there(tmp_path):
    data = read_yaml(REPO / "params.yaml")
    del data["itf"]["steps"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"itf\.steps is missing, it must be a whole number ≥ 0"):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "written twice"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "must be a mapping"),
        ("a: !!python/object:os.system {}\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, words):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        read_yaml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml cannot be read"):
        config.load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", 1e-05),
        ("1.0e-8", 1e-8),
        ("3", 3),
        ("-2", -2),
        ("1.", 1.0),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("010", 10),
    ],
)
def test_scalars_are_read_as_dvc_reads_them(tmp_path, text, value):
    from ruamel.yaml import YAML

    path = tmp_path / "x.yaml"
    path.write_text(f"x: {text}\n", encoding="utf-8")
    found = read_yaml(path)["x"]
    assert found == value and type(found) is type(value)
    assert found == YAML(typ="safe").load(path)["x"]


def test_with_values_changes_only_what_it_names_and_checks_it(params):
    changed = config.with_values(params, {"train.dry.epochs": 1, "score.coverage": [0.8]})
    assert (changed.train.dry.epochs, changed.score.coverage) == (1, (0.8,))
    assert changed.train.fx == params.train.fx
    with pytest.raises(ConfigError, match=r"train\.dry\.epoch "):
        config.with_values(params, {"train.dry.epoch": 1})


def test_flatten_undoes_nest():
    flat = {"a.b.c": 1, "a.d": 2, "e": [1, 2]}
    assert config.flatten(config.nest(flat)) == flat


def test_every_section_is_found_by_its_class(params):
    keys = config.sections()
    assert keys[config.TrainDry] == "train.dry"
    assert config.section(params, config.TrainFx) == params.train.fx
    assert {key.split(".")[0] for key in keys.values()} == set(config.Params.model_fields)


def test_the_digest_sees_values_not_their_order(params, written):
    assert config.load(written()).digest == params.digest
    assert config.load(written(itf__steps=params.itf.steps + 1)).digest != params.digest


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_a_profile_overrides_known_keys_and_changes_something(profile, params):
    assert config.load_profile(profile, REPO / "params.yaml").digest != params.digest
    assert set(config.flatten(read_yaml(profile))) <= set(config.flatten(params.model_dump()))


def test_all_profiles_exist():
    assert {path.stem for path in PROFILES} >= {"smoke", "workstation", "studio"}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_apply_writes_the_profile_and_keeps_the_comments(profile, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((REPO / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    changed = config.apply_profile(profile, path)
    assert changed
    assert config.load(path) == config.load_profile(profile, REPO / "params.yaml")
    assert "# MIDI velocity of every note" in path.read_text(encoding="utf-8")
    assert config.apply_profile(profile, path) == {}


def test_a_profile_with_a_wrong_key_leaves_the_parameters_alone(tmp_path, written):
    path, profile = written(), tmp_path / "mine.yaml"
    before = path.read_text(encoding="utf-8")
    profile.write_text("loss: {lamda: 1.0}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: loss\.lamda = 1\.0 is an unknown key"):
        config.apply_profile(profile, path)
    assert path.read_text(encoding="utf-8") == before


def test_the_command_line_ends_with_one_sentence(written):
    bad = written(loss__lambda_s="x")
    done = subprocess.run(
        [sys.executable, "-m", "unmixer_core.config", "check", str(bad)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_config_needs_no_torch():
    code = (
        "import sys, unmixer_core.pipeline.log; sys.exit(any(name in sys.modules for name in "
        "('torch', 'mlflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0
