"""dvc.yaml tells the truth: deps are what the import graph says, params what main reads, paths
what the cmd names.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import typing
from pathlib import Path

import pytest

from tools import dependencies, readme
from unmixer_core import config
from unmixer_core.pipeline import tracking

REPO = Path(__file__).resolve().parents[2]
PIPELINE = dependencies.pipeline()
ORDER = [
    "sample_patches",
    "render_patches",
    "extract_features",
    "train_proxy",
    "render_proxy",
    "train_dry",
    "train_fx",
    "train_full",
    "evaluate",
    "benchmark_itf",
]
SCRIPT = {
    stage: "train" if stage in ("train_dry", "train_fx", "train_full") else stage for stage in ORDER
}


def paths(stage: str, kind: str) -> list[str]:
    return [tracking._path(entry) for entry in PIPELINE[stage].get(kind, [])]


def command(stage: str) -> dict[str, str]:
    """{option: path} of the stage's command line."""
    words = shlex.split(PIPELINE[stage]["cmd"])
    assert words[:3] == ["python", "-m", f"stages.{SCRIPT[stage]}"]
    if SCRIPT[stage] == "train":
        assert words[3:5] == ["--phase", stage.removeprefix("train_")]
        del words[3:5]
    assert all(word.startswith("--") for word in words[3::2])
    return {
        option.removeprefix("--"): value
        for option, value in zip(words[3::2], words[4::2], strict=True)
    }


def signature(stage: str) -> dict[str, type]:
    module = importlib.import_module(f"stages.{SCRIPT[stage]}")
    main = module.PHASES[stage.removeprefix("train_")] if SCRIPT[stage] == "train" else module.main
    hints = typing.get_type_hints(main)
    return {name: hints[name] for name in inspect.signature(main).parameters}


def test_the_stages_stand_in_order():
    assert list(PIPELINE) == ORDER
    assert {path.stem for path in (REPO / "stages").glob("*.py")} - {"__init__"} == set(
        SCRIPT.values()
    )


@pytest.mark.parametrize("stage", ORDER)
def test_code_deps_are_the_modules_that_can_change_the_output(stage):
    expected, listed = (
        dependencies.closure(SCRIPT[stage]),
        dependencies.expand(PIPELINE[stage]["deps"]),
    )
    assert (sorted(expected - listed), sorted(listed - expected)) == ([], []), (
        f"{stage}: (missing, too many); `python tools/dependencies.py --write` mends it"
    )


@pytest.mark.parametrize("stage", ORDER)
def test_params_are_the_sections_of_mains_signature(stage):
    keys = config.sections()
    assert sorted(PIPELINE[stage].get("params", [])) == sorted(
        keys[kind] for kind in signature(stage).values() if kind in keys
    )


@pytest.mark.parametrize("stage", ORDER)
def test_the_command_names_every_path_of_main_and_each_is_a_dep_or_an_out(stage):
    given = command(stage)
    wanted = {name.replace("_", "-") for name, kind in signature(stage).items() if kind is Path}
    assert set(given) == wanted | {"metrics"}
    written = paths(stage, "outs") + paths(stage, "metrics") + paths(stage, "plots")
    assert set(given.values()) <= set(written) | set(paths(stage, "deps"))


@pytest.mark.parametrize("stage", ORDER)
def test_every_data_dep_is_used_and_made_by_an_earlier_stage_or_shipped(stage):
    data = [dep for dep in paths(stage, "deps") if dep.split("/")[0] not in dependencies.PACKAGES]
    earlier = ORDER[: ORDER.index(stage)]
    made = {out for name in earlier for kind in ("outs", "metrics") for out in paths(name, kind)}
    shipped = {dep for dep in data if dep.startswith("benchmarks/") and (REPO / dep).exists()}
    assert set(data) <= made | shipped
    assert set(data) <= set(command(stage).values())


@pytest.mark.parametrize("stage", ORDER)
def test_outputs_lie_in_data_models_or_metrics_and_metrics_go_to_git(stage):
    for kind in ("outs", "metrics", "plots"):
        assert all(re.match(r"(data|models|metrics)/", path) for path in paths(stage, kind))
    assert PIPELINE[stage]["metrics"] == [{f"metrics/{stage}.json": {"cache": False}}]
    assert not any(
        isinstance(out, dict) and out[tracking._path(out)].get("persist")
        for out in PIPELINE[stage].get("outs", [])
    )


def test_a_change_of_the_loss_reruns_training_and_what_follows_and_nothing_before():
    touched = {stage for stage in ORDER if "loss" in PIPELINE[stage].get("params", [])}
    assert touched == {"train_dry", "train_fx", "train_full"}
    assert set(tracking.stages_before("evaluate", REPO / "dvc.yaml")) >= touched
    for stage in (
        "sample_patches",
        "render_patches",
        "extract_features",
        "train_proxy",
        "render_proxy",
    ):
        assert not touched & set(tracking.stages_before(stage, REPO / "dvc.yaml"))


def test_every_section_is_read_by_some_stage():
    read = {key for stage in ORDER for key in PIPELINE[stage].get("params", [])}
    assert read | {"unmix"} == set(config.sections().values()), "unmix is the command's own section"


def test_what_is_no_input_is_hidden_from_dvc():
    hidden = (REPO / ".dvcignore").read_text(encoding="utf-8").split()
    assert {"__pycache__", "*.pyc", ".venv", ".unmixer"} <= set(hidden)


class TestTheImportGraph:
    """`dependencies` itself, on a small tree."""

    @pytest.fixture
    def tree(self, tmp_path, monkeypatch):
        files = {
            "stages/__init__.py": "",
            "stages/one.py": "from unmixer_core import a\nfrom unmixer_core.pipeline import log\n"
            "from unmixer_core.pack import inner\n",
            "unmixer_core/__init__.py": "",
            "unmixer_core/a.py": "def f():\n    import unmixer_core.late\n",
            "unmixer_core/late.py": "if TYPE_CHECKING:\n    import unmixer_core.typed\n",
            "unmixer_core/typed.py": "",
            "unmixer_core/pipeline/log.py": "import unmixer_core.never",
            "unmixer_core/never.py": "",
            "unmixer_core/pack/__init__.py": "",
            "unmixer_core/pack/inner.py": (
                '"""unmixer_core.never"""\nRUN = "unmixer_core.host"\nTABLE = "t.json"\n'
            ),
            "unmixer_core/pack/t.json": "{}",
            "unmixer_core/host/__init__.py": "",
            "unmixer_core/host/__main__.py": "from .voice import x\n",
            "unmixer_core/host/voice.py": "x = 1\n",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.setattr(dependencies, "REPO", tmp_path)

    def test_follows_late_imports_subprocesses_and_data_but_not_types_docstrings_or_neutral_modules(
        self, tree
    ):
        assert dependencies.closure("one") == {
            "stages/one.py",
            "unmixer_core/a.py",
            "unmixer_core/late.py",
            "unmixer_core/pack/inner.py",
            "unmixer_core/pack/t.json",
            "unmixer_core/host/__main__.py",
            "unmixer_core/host/voice.py",
        }

    def test_names_a_folder_where_all_of_it_is_meant(self, tree):
        short = dependencies.compact(dependencies.closure("one"))
        assert short == [
            "stages/one.py",
            "unmixer_core/a.py",
            "unmixer_core/host",
            "unmixer_core/late.py",
            "unmixer_core/pack",
        ]
        assert dependencies.expand(short) == dependencies.closure("one")


def test_the_readme_quotes_the_committed_metrics():
    # Of HEAD: `make repro` may have written other metrics into the working tree.
    metrics = readme.committed_metrics()
    if metrics is None:
        pytest.skip("no git repository: the committed metrics are not known")
    assert readme.wanted(metrics) == (REPO / "README.md").read_text(encoding="utf-8"), (
        "python tools/readme.py --write corrects it"
    )
