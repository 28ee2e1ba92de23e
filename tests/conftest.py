"""Shared by all tests: one compute thread, no tracking, and the repository's own parameters."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

# Under nohup, or behind & in a script, Ctrl-C is ignored, and children inherit that. Tests send
# SIGINT to their children, so these must get the signal as they would from a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: tests run in parallel processes
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["MPLBACKEND"] = "agg"
os.environ["UNMIXER_TRACKING"] = "off"
os.environ["UNMIXER_HOSTS"] = (
    "embedded"  # whatever hosts.yaml says: tests are not for somebody's Live
)
os.environ["UNMIXER_RENDER"] = "local"
os.environ["UNMIXER_PRECISION"] = "float32"  # the same on every processor
for name in (
    "DVC_ROOT",
    "DVC_STAGE",
    "DVC_EXP_NAME",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
    "UNMIXER_THREADS",
):
    os.environ.pop(name, None)

import pytest  # noqa: E402

from unmixer_core import config  # noqa: E402


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def params(repo: Path) -> config.Params:
    """params.yaml as it is committed."""
    return config.load(repo / "params.yaml")


#: Modules whose tests talk to one and the same service, which takes seconds to start.
ONE_SERVICE = ("web/test_api.py", "web/test_fuzz.py", "page/test_page.py")
#: Modules whose last test counts what the others went through.
COUNTED = ("test_faults.py",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests go to whichever process is free, but those of ONE_SERVICE to one, and those of
    COUNTED.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return (
                "service"
                if module.endswith(ONE_SERVICE)
                else module
                if module.endswith(COUNTED)
                else nodeid
            )

    return Scheduling(config, log)
