"""The shell around the stages, cheaply.

DVC accepts it, layers hold, documented files exist (`make smoke` runs it).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from unmixer_core.config.yaml12 import read_yaml

REPO = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
}


def run(*command: str, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git and DVC project with two toy stages in the manner of ours."""
    for name in (".dvc/config", ".dvcignore", "params.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    (tmp_path / "stages").mkdir()
    body = (
        "from pathlib import Path\nfrom unmixer_core import config\nfrom "
        "unmixer_core.pipeline.run import run_stage\n"
    )
    make = (
        "def main(out: Path, itf: config.Itf) -> dict:\n    out.write_text('x')\n    return "
        "{'steps': itf.steps}\n"
    )
    take = (
        "def main(given: Path, loss: config.Loss) -> dict[str, float]:\n    return {'weight': "
        "loss.lambda_s}\n"
    )
    end = "if __name__ == '__main__':\n    run_stage(main)\n"
    (tmp_path / "stages/make.py").write_text(body + make + end, encoding="utf-8")
    (tmp_path / "stages/take.py").write_text(body + take + end, encoding="utf-8")
    python = f"PYTHONPATH={REPO} UNMIXER_TRACKING=off python stages"
    stages = {
        "make": {
            "cmd": f"{python}/make.py --out data/x --metrics metrics/make.json",
            "deps": ["stages/make.py"],
            "params": ["itf"],
            "outs": ["data/x"],
            "metrics": [{"metrics/make.json": {"cache": False}}],
        },
        "take": {
            "cmd": f"{python}/take.py --given data/x --metrics metrics/take.json",
            "deps": ["stages/take.py", "data/x"],
            "params": ["loss"],
            "metrics": [{"metrics/take.json": {"cache": False}}],
        },
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    run("git", "init", "-q", cwd=tmp_path)
    return tmp_path


def test_dvc_runs_stages_once_and_a_loss_weight_reruns_what_reads_it(project):
    first = run("dvc", "repro", cwd=project)
    assert first.returncode == 0, first.stderr
    assert json.loads((project / "metrics/take.json").read_text(encoding="utf-8")) == {
        "weight": 0.1
    }
    again = run("dvc", "repro", cwd=project)
    assert "didn't change, skipping" in again.stdout and "Running stage" not in again.stdout
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(
        text.replace("lambda_s: 0.1 ", "lambda_s: 0.5 "), encoding="utf-8"
    )
    changed = run("dvc", "repro", cwd=project)
    assert "Running stage 'take'" in changed.stdout and "Running stage 'make'" not in changed.stdout
    assert json.loads((project / "metrics/take.json").read_text(encoding="utf-8")) == {
        "weight": 0.5
    }


def test_a_download_without_git_runs_the_stages_too(project):
    shutil.rmtree(project / ".git")
    recipe = (REPO / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\t@(test -e \.git .*no_scm true)", recipe, re.MULTILINE)
    assert run("sh", "-c", line, cwd=project).returncode == 0
    done = run("dvc", "repro", cwd=project)
    assert done.returncode == 0, done.stderr
    assert (project / "metrics/take.json").is_file()


def test_a_wrong_parameter_stops_repro_with_its_name(project):
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(
        text.replace("lambda_s: 0.1 ", "lambda_s: lots "), encoding="utf-8"
    )
    done = run("dvc", "repro", cwd=project)
    assert done.returncode != 0
    assert (
        "error: params.yaml: loss.lambda_s = 'lots' is not allowed, it must be a number ≥ 0.0"
        in done.stderr
    )
    assert not (project / "data/x").exists()


def test_dvc_reads_our_pipeline():
    done = run("dvc", "stage", "list", "--name-only")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(read_yaml(REPO / "dvc.yaml")["stages"])


def test_layers_hold():
    done = run(str(BIN / "lint-imports"))
    assert done.returncode == 0, done.stdout


def test_requirements_are_all_constrained_but_torch():
    pinned = {
        line.split("==")[0].lower()
        for line in (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    names = {
        re.split(r"[~<>=\[;]", line)[0].strip().lower()
        for file in ("requirements.txt", "requirements-serve.txt", "requirements-dev.txt")
        for line in (REPO / file).read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith(("-r", "#"))
    }
    assert names - pinned == {"torch"}
    assert not any(name.startswith(("nvidia", "triton", "cuda")) for name in pinned)


def test_dvc_sends_nothing_home():
    assert "analytics = false" in (REPO / ".dvc/config").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "target",
    ["repro", "test", "check", "smoke", "serve", "ui", "clean", "tracking-server", "postgres"],
)
def test_make_knows_its_targets(target):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    assert run("make", "--dry-run", target).returncode == 0


def test_an_old_python_is_refused_in_one_sentence(tmp_path):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    for name in (
        "Makefile",
        "requirements.txt",
        "requirements-serve.txt",
        "requirements-dev.txt",
        "constraints.txt",
    ):
        shutil.copy(REPO / name, tmp_path / name)
    done = run("make", "setup", "PYTHON=false", cwd=tmp_path)
    assert done.returncode != 0 and "error: Python 3.11 or newer is needed" in done.stderr


def test_the_readme_names_what_exists():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    assert text.index("make setup") < text.index("unmix ") < 2500
    assert "make repro" in text and "make test" in text
    for page in (REPO / "README.md", *(REPO / "docs").glob("*.md")):
        linked = re.findall(r"\]\(([\w./-]+)\)", page.read_text(encoding="utf-8"))
        assert [name for name in linked if not (page.parent / name).exists()] == [], page
    pipeline = (REPO / "docs" / "pipeline.md").read_text(encoding="utf-8")
    assert all(f"{path.name}" in pipeline for path in (REPO / "profiles").glob("*.yaml"))


def test_the_docs_name_every_environment_variable():
    code = [
        path.read_text(encoding="utf-8")
        for folder in ("unmixer_core", "stages", "unmixer_app", "tools")
        for path in (REPO / folder).rglob("*.py")
    ]
    # A name with a star behind its last underscore, in a help text, stands for several variables.
    used = {name for text in code for name in re.findall(r"UNMIXER_[A-Z]\w+(?<!_)\b", text)}
    page = (REPO / "docs" / "environment.md").read_text(encoding="utf-8")
    told = set(re.findall(r"UNMIXER_[A-Z]\w+", page))
    assert (sorted(used - told), sorted(told - used)) == ([], []), (
        "(not in docs/environment.md, not in the code)"
    )
