"""Which hosts there are: the environment, hosts.yaml, and that neither changes what a clip is
filed under.
"""

from __future__ import annotations

import pytest

from unmixer_core.errors import ConfigError
from unmixer_core.live.farm.host_list import configured, sounds
from unmixer_core.rendering import render_job

MIXED = """
hosts:
  - embedded: 2
    lanes: 3
  - live: 192.168.1.20
    recordings: "D:/Sets=/mnt/studio"
    delete_recordings: true
    node: studio
  - live: 192.168.1.21
    name: upstairs
    port: 12000
"""


def test_a_file_lists_embedded_hosts_and_lives(tmp_path):
    file = tmp_path / "hosts.yaml"
    file.write_text(MIXED)
    first, second, studio, upstairs = configured({}, file)
    assert [first.name, second.name] == ["embedded host 1", "embedded host 2"] and first.lanes == 3
    assert (
        studio.name == "Live at 192.168.1.20:11000"
        and studio.lanes == 4
        and studio.delete_recordings
    )
    assert (studio.recordings, studio.node) == ("D:/Sets=/mnt/studio", "studio")
    assert (upstairs.name, upstairs.live.port) == ("upstairs", 12000)
    assert studio.live.shared and upstairs.live.shared  # both answer to one port of this machine
    assert configured({"UNMIXER_HOSTS": str(file)}, tmp_path / "none") == [
        first,
        second,
        studio,
        upstairs,
    ]


def test_the_environment_comes_before_the_file(tmp_path):
    file = tmp_path / "hosts.yaml"
    file.write_text(MIXED)
    (live,) = configured({"UNMIXER_LIVE_HOST": "10.0.0.9", "UNMIXER_LIVE_LANES": "7"}, file)
    assert live.live.host == "10.0.0.9" and live.lanes == 7 and not live.live.shared
    assert configured({"UNMIXER_HOSTS": "embedded"}, file) is None
    two = configured(
        {"UNMIXER_HOSTS": "embedded, 10.0.0.1,10.0.0.2:12000", "UNMIXER_LIVE_RECORDINGS": "/a=/b"},
        file,
    )
    assert [spec.name for spec in two] == [
        "embedded host 1",
        "Live at 10.0.0.1:11000",
        "Live at 10.0.0.2:12000",
    ]
    assert two[1].recordings == "/a=/b"
    assert configured({}, tmp_path / "none") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts: []", "at least one host"),
        ("{hosts: [{embedded: 1}], more: 1}", "one list named 'hosts'"),
        ("hosts: [{embedded: 1, live: a}]", r"hosts\[0\] of .* either 'embedded"),
        ("hosts: [{live: a}, {lanes: 2}]", r"hosts\[1\]"),
        ("hosts: [{live: a, color: red}]", "unknown key 'color'"),
        ("hosts: [{embedded: 0}]", "embedded in .* is 0, but a whole number from 1 to 1024"),
        ("hosts: [{live: a, port: 70000}]", "port in .* is 70000, but a port number"),
        ("hosts: [{live: a, delete_recordings: 1}]", "but true or false"),
        ("hosts: [{live: a, recordings: /x}]", "recordings in .* is '/x'"),
        ("hosts: [{live: a}, {live: a, port: 12000}]", "a is in the list of hosts twice"),
        ("hosts: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(text, words, tmp_path):
    file = tmp_path / "hosts.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        configured({}, file)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"UNMIXER_HOSTS": "missing.yaml"}, "missing.yaml cannot be read"),
        ({"UNMIXER_HOSTS": "embedded,,a"}, "separated by commas"),
        ({"UNMIXER_HOSTS": "10.0.0.1:port"}, "UNMIXER_OSC_PORT is 'port'"),
        ({"UNMIXER_LIVE_HOST": "a", "UNMIXER_LIVE_LANES": "0"}, "UNMIXER_LIVE_LANES"),
        ({"UNMIXER_LIVE_HOST": "a", "UNMIXER_LIVE_RECORDINGS": "x"}, "UNMIXER_LIVE_RECORDINGS"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(environ, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        configured(environ, tmp_path / "none")


def test_clips_are_filed_by_what_sounds_not_by_who_or_how_many(tmp_path, monkeypatch):
    assert sounds({"UNMIXER_LIVE_HOST": "10.0.0.9"}, tmp_path / "none") == ["10.0.0.9"]
    digests = {}
    for hosts in (
        "embedded",
        "embedded,embedded,embedded",
        "10.0.0.1,10.0.0.2",
        "10.0.0.3",
        "embedded,10.0.0.3",
    ):
        for engine in ("local", "ray"):
            monkeypatch.setenv("UNMIXER_HOSTS", hosts)
            monkeypatch.setenv("UNMIXER_RENDER", engine)
            digests.setdefault(hosts, set()).add(render_job.host_digest())
    one, three, lives, live, mixed = (found.pop() for found in digests.values())
    assert not any(digests.values())  # the engine changed none
    assert one == three and lives == live and len({one, live, mixed}) == 3
