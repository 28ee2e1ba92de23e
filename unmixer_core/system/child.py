"""Child processes of the server that answer JSON lines.

Decoding, searching and rendering happen in child processes. So the server stays responsive, a file
that crashes the decoder ends one child only, and memory that a library leaks is freed with its
process. A child gets one request at a time. It may write several lines before the last one, which
holds "done" or "failed" (a sentence). A child ends when its standard input is closed, so none
outlives its parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TextIO

from unmixer_core.errors import UnmixerError
from unmixer_core.system.json_types import Json

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 120.0
LINE_BYTES = 4 << 20
ORDINARY = re.compile(".*", re.DOTALL)
BARE = re.compile(r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|DYLD_\w+|PYTHON\w+|VIRTUAL_ENV")
#: Names of variables that no child needs: the service's token, keys of clouds.
SECRET = re.compile(
    r"(?i)^(aws|azure|google|gcp|gcloud|cloudsdk|boto|s3|hf|wandb|mlflow|dvc)_|token|secret|passw|credential|auth|(^|_)key(_|$)|apikey"
)
Message = Json


class ChildEnded(UnmixerError):
    """The process is gone; the sentence says how."""


class Failed(UnmixerError):
    """The process says, in a sentence, why it cannot do what it was asked.

    `why` in a word, where that matters.
    """

    def __init__(self, sentence: str, why: str = "") -> None:
        super().__init__(sentence)
        self.why = why


class Child:
    """The server's end of a process `python -m <module> <words>`.

    `threads`: compute threads of its libraries. `bare`: it reads untrusted uploads, so its
    environment holds only the variables that Python needs.
    """

    def __init__(
        self, module: str, words: Sequence[str] = (), threads: int = 1, bare: bool = False
    ) -> None:
        self.module, self.words, self.threads, self.bare = module, tuple(words), threads, bare
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return (
            self._process.pid
            if self._process is not None and self._process.returncode is None
            else None
        )

    async def start(self) -> None:
        """Start the process and wait for its first line.

        Raises Failed when the first line is a reason, ChildEnded when there is none.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.module,
            *self.words,
            cwd=ROOT,
            limit=LINE_BYTES,
            env=environment(os.environ, self.threads, self.bare),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                first = await self._read()
        except BaseException as error:
            await self.stop()
            if isinstance(error, TimeoutError):
                raise ChildEnded(
                    f"{self.module} did not get ready within {READY_WITHIN_S:.0f} s."
                ) from None
            raise
        if "failed" in first:
            await self.stop()
            raise Failed(first["failed"])

    async def ask(self, request: Message, patience_s: float) -> AsyncGenerator[Message, None]:
        """Send a request; yield every line of the answer, the last one (with "done") included.

        Raises Failed, or ChildEnded when it ends or is silent for `patience_s`. A child that is
        left in the middle of an answer is stopped: by `aclosing`, at once.
        """
        async with self._turn:
            whole = False
            try:
                await self._write(request)
                while not whole:
                    async with asyncio.timeout(patience_s):
                        message = await self._read()
                    whole = "done" in message or "failed" in message
                    if "failed" in message:
                        raise Failed(message["failed"], message.get("why", ""))
                    yield message
            except TimeoutError:
                raise ChildEnded(
                    f"the process stood still for {patience_s:.0f} s and was stopped."
                ) from None
            finally:
                if not whole:
                    await self.stop()

    async def answer(self, request: Message, patience_s: float) -> Json:
        """Return what the last line holds under "done", a JSON object."""
        last: Message = {}
        async with aclosing(self.ask(request, patience_s)) as messages:
            async for message in messages:
                last = message
        done: Json = last["done"]
        return done

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def stop(self) -> None:
        """Ends it and everything that it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _write(self, request: Message) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self.gone() from None

    async def _read(self) -> Message:
        assert self._process is not None and self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise await self.gone()
        message: Message = json.loads(line)
        return message

    async def gone(self) -> ChildEnded:
        """Waits until it has ended; the error says how."""
        assert self._process is not None
        code = await self._process.wait()
        return ChildEnded(
            f"the process ended {f'by signal {-code}' if code < 0 else f'with status {code}'}."
        )


def environment(given: Mapping[str, str], threads: int, bare: bool) -> dict[str, str]:
    """What a child gets of ours: no secrets (SECRET).

    Renders are the embedded host's, whatever Live is named: Live is for pushing.
    """
    kept = {
        name: value
        for name, value in given.items()
        if (BARE if bare else ORDINARY).fullmatch(name)
        and not SECRET.search(name)
        and name != "UNMIXER_LIVE_HOST"
    }
    names = ("UNMIXER_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return (
        kept
        | dict.fromkeys(names, str(threads))
        | {"GOMP_SPINCOUNT": "20000", "UNMIXER_TRACKING": "off"}
    )


class Wire:
    """The child's end: `tell` writes a line, iterating yields what is asked.

    Other prints go to standard error.
    """

    def __init__(self) -> None:
        self._out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._asked: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def tell(self, message: Message) -> None:
        with self._lock:
            self._out.write(json.dumps(message, allow_nan=False) + "\n")
            self._out.flush()

    def __iter__(self) -> Iterator[Message]:
        """Requests, for ever; the process ends at once when the parent is gone, whatever it is
        doing.
        """
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            yield self._asked.get()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._asked.put(json.loads(line))
        os._exit(0)
