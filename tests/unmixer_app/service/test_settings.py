from __future__ import annotations

import pytest

from unmixer_app.service.settings import MIB, ServiceSettings, loopback
from unmixer_core.errors import ConfigError


def test_loopback_and_no_token_are_the_defaults():
    found = ServiceSettings.from_environment({})
    assert loopback(found.host) and found.token == "" and found.url == "http://127.0.0.1:8000/"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "studio.local"])
def test_bound_elsewhere_there_is_always_a_token(host: str):
    found = ServiceSettings.from_environment({"UNMIXER_SERVE_HOST": host})
    assert len(found.token) >= 24 and found.url.endswith(f"#token={found.token}")
    assert found.token != ServiceSettings.from_environment({"UNMIXER_SERVE_HOST": host}).token
    own = ServiceSettings.from_environment(
        {"UNMIXER_SERVE_HOST": host, "UNMIXER_SERVE_TOKEN": "0123456789abcdef"}
    )
    assert own.token == "0123456789abcdef"


def test_behind_a_reverse_proxy_there_is_always_a_token():
    found = ServiceSettings.from_environment({"UNMIXER_SERVE_NAMES": "unmixer.studio"})
    assert len(found.token) >= 24 and found.reachable and found.names == ("unmixer.studio",)
    own = ServiceSettings.from_environment({"UNMIXER_SERVE_NAMES": "localhost,127.0.0.1"})
    assert own.token == "" and not own.reachable


def test_sizes_and_times_are_in_the_units_of_their_names():
    names = {
        "UPLOAD_MIB": "3",
        "KEEP_HOURS": "2",
        "KEEP_MIB": "5",
        "QUEUE": "7",
        "RATE": "9",
        "WORKERS": "2",
    }
    found = ServiceSettings.from_environment(
        {f"UNMIXER_SERVE_{name}": value for name, value in names.items()}
    )
    assert (found.upload_bytes, found.keep_s, found.keep_bytes) == (3 * MIB, 7200.0, 5 * MIB)
    assert (found.queue, found.rate, found.workers) == (7, 9.0, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("QUEUE", "0"),
        ("RATE", "-1"),
        ("UPLOAD_MIB", "1.5"),
        ("TOKEN", "short"),
        ("PORT", "٣"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str):
    with pytest.raises(ConfigError, match=f"UNMIXER_SERVE_{name}"):
        ServiceSettings.from_environment({f"UNMIXER_SERVE_{name}": value})
