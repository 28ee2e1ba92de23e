"""The words of `unmix`: which command a word starts, and what its help says."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

import pytest

from unmixer_app.command import cli, unmix
from unmixer_app.service.settings import ServiceSettings


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was run, in place of the commands themselves."""
    made: list[tuple[str, list[str]]] = []

    def recorder(name: str):
        def run(words: Sequence[str]) -> int:
            made.append((name, list(words)))
            return 0

        return run

    for name, command in cli.COMMANDS.items():
        monkeypatch.setitem(cli.COMMANDS, name, cli.Command(command.summary, recorder(name)))
    monkeypatch.setattr(unmix, "run", recorder("unmix"))
    return made


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["a.wav"], "unmix"),
        (["--fast", "a.wav"], "unmix"),
        (["./serve"], "unmix"),
        (["render", "p.json", "o.wav"], "render"),
        (["push", "p.json", "--adapt"], "push"),
        (["serve", "--port", "9000"], "serve"),
    ],
)
def test_the_first_word_chooses_the_command(words, name, calls):
    assert cli.run(words) == 0
    assert [call[0] for call in calls] == [name]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.run(["--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"  {name} " in told and c.summary in told for name, c in cli.COMMANDS.items())


def test_serve_hands_address_and_port_to_the_service(monkeypatch: pytest.MonkeyPatch):
    seen = {}

    def main(environ: Mapping[str, str]) -> int:
        settings = ServiceSettings.from_environment(environ)
        seen.update(host=settings.host, port=settings.port)
        return 0

    monkeypatch.setattr(importlib.import_module("unmixer_app.serve"), "main", main)
    assert cli.run(["serve", "--host", "localhost", "--port", "0"]) == 0
    assert seen == {"host": "localhost", "port": 0}


def test_a_port_that_is_none_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["serve", "--port", "70000"]) == 1
    assert "UNMIXER_SERVE_PORT is '70000'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["render", "p.json"]])
def test_wrong_usage_is_status_2(words, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.run(words)
    assert ended.value.code == 2 and "usage: unmix" in capsys.readouterr().err
