"""What a stage's output can depend on, read from the source.

The truth that dvc.yaml's `deps` are compared with.

    python tools/dependencies.py            # says where dvc.yaml differs
    python tools/dependencies.py --write    # puts it right

A module depends on what it imports (also inside functions; not under TYPE_CHECKING), on modules it
names in a string (`python -m unmixer_core.headless`), and on data files beside it that it names in
a string (`"tables.json"`).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("unmixer_core", "stages")
# These read, check, run and report; they hold no number and compute none.
# Ray changes no result: it only says where a patch is rendered.
NEUTRAL = (
    "unmixer_core/errors.py",
    "unmixer_core/config/",
    "unmixer_core/pipeline/",
    "unmixer_core/system/",
    "unmixer_core/live/ray/",
)


def closure(script: str) -> set[str]:
    """Files (relative to the repository) that can change what `stages/<script>.py` writes,
    itself included.
    """
    found: set[str] = set()
    waiting = [f"stages/{script}.py"]
    while waiting:
        name = waiting.pop()
        if name in found or name.startswith(NEUTRAL):
            continue
        found.add(name)
        if name.endswith(".py"):
            waiting += edges(REPO / name)
    return {
        name for name in found if not name.endswith("__init__.py") or (REPO / name).stat().st_size
    }


def edges(path: Path) -> list[str]:
    """Files of ours that one module reaches directly."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(REPO).parent.parts
    names = [name for node in _walk(tree) for name in _named(node, package)]
    files = [found for name in names for found in _files(name)]
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    data = [
        path.parent / text
        for text in texts
        if "." in text and len(text) < 80 and not set("\n/") & set(text)
    ]
    return files + [
        str(file.relative_to(REPO)) for file in data if file.is_file() and file.suffix != ".py"
    ]


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:` and docstrings."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        yield node
        yield from _walk(node)


def _named(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else ()
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("unmixer_core.")
    ):
        yield node.value


def _files(name: str) -> list[str]:
    """The file of a dotted name and of every package above it.

    A package that can be run brings its __main__.
    """
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return []
    found = []
    for depth in range(1, len(parts) + 1):
        stem = REPO.joinpath(*parts[:depth])
        candidates = [stem.with_suffix(".py"), stem / "__init__.py"] + (
            [stem / "__main__.py"] if depth == len(parts) else []
        )
        found += [str(file.relative_to(REPO)) for file in candidates if file.is_file()]
    return found


def compact(files: set[str]) -> list[str]:
    """The same files, folders named where all of a folder is meant."""
    named = set(files)
    folders = {parent for file in files for parent in map(str, Path(file).parents)} - {
        ".",
        "stages",
        "unmixer_core",
    }
    for folder in sorted(folders, key=len):
        if any(folder.startswith(f"{name}/") for name in named):
            continue
        inside = _contents(folder)
        if inside and inside <= files:
            named = {name for name in named if not name.startswith(f"{folder}/")} | {folder}
    return sorted(named, key=lambda name: (not name.startswith("stages/"), name))


def expand(deps: list[str]) -> set[str]:
    """The code files that a list of deps stands for."""
    code = [dep for dep in deps if dep.split("/")[0] in PACKAGES]
    return {file for dep in code for file in (_contents(dep) if (REPO / dep).is_dir() else {dep})}


def _contents(folder: str) -> set[str]:
    files = (
        file
        for file in (REPO / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )
    return {
        str(file.relative_to(REPO))
        for file in files
        if file.name != "__init__.py" or file.stat().st_size
    }


def pipeline() -> dict[str, dict]:
    """The stages of dvc.yaml."""
    return yaml.safe_load((REPO / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def script(entry: dict) -> str:
    """The script of a stage: `train` of `python -m stages.train --phase dry ...`."""
    return str(entry["cmd"]).split()[2].removeprefix("stages.")


def rewrite() -> None:
    """Put the code deps of every stage into dvc.yaml, its comments and data deps kept."""
    from ruamel.yaml import YAML

    editor = YAML()
    editor.width = 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    path = REPO / "dvc.yaml"
    document = editor.load(path.read_text(encoding="utf-8"))
    for entry in document["stages"].values():
        data = [dep for dep in entry["deps"] if dep.split("/")[0] not in PACKAGES]
        entry["deps"] = compact(closure(script(entry))) + data
    with path.open("w", encoding="utf-8") as handle:
        editor.dump(document, handle)


if __name__ == "__main__":
    if "--write" in sys.argv:
        rewrite()
    for stage, entry in pipeline().items():
        expected, listed = closure(script(entry)), expand(entry["deps"])
        sys.stdout.write(
            f"{stage}: missing {sorted(expected - listed)}, too many {sorted(listed - expected)}\n"
        )
