"""What the bench waits for of an agent: that it is ready, and that a new configuration is in force."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zerohop.bench.account import Account
from zerohop.errors import EXIT_UNSUPPORTED, UnsupportedError, ZerohopError

_READY_SECONDS: Final = 60.0
_LOAD_SECONDS: Final = 300.0
_READY: Final = re.compile(r"\bready\b")
_APPLIED: Final = re.compile(r"\bconfiguration applied\b")
_REFUSED: Final = re.compile(r"\bconfiguration not applied\b")


def wait_ready(agent: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until the agent that writes `log` is ready; raises `ZerohopError` with its words when it is not."""
    _wait(agent, log, lambda: bool(_READY.search(_words(log))), "is not ready in time", _READY_SECONDS)


@dataclass(frozen=True)
class Reload:
    """Exchanges the policies of a running agent. `documents`: the rest of its configuration."""

    config: Path
    documents: str
    agent: subprocess.Popen[bytes]
    log: Path

    def apply(self, policies: str, account: Account) -> float:
        """Writes the configuration; returns how many seconds later the kernel judges by it.

        Raises `ZerohopError` where it never does.
        """
        generation, applied = account.policies(), len(_APPLIED.findall(_words(self.log)))
        refused = len(_REFUSED.findall(_words(self.log)))

        def in_force() -> bool:
            if len(_REFUSED.findall(_words(self.log))) > refused:
                raise ZerohopError(f"zerohop run: {_words(self.log).strip()[-2000:]}")
            return account.policies() != generation

        written = self.config.with_suffix(".new")
        written.write_text(self.documents + policies, encoding="utf-8")
        os.replace(written, self.config)
        begin = time.monotonic()
        _wait(self.agent, self.log, in_force, "did not apply the policies in time", _LOAD_SECONDS)
        seconds = time.monotonic() - begin
        # What it has to do besides should not fall into the first run.
        done = "did not finish with the policies in time"
        _wait(self.agent, self.log, lambda: len(_APPLIED.findall(_words(self.log))) > applied, done, _READY_SECONDS)
        return seconds


def _wait(
    agent: subprocess.Popen[bytes], log: Path, wanted: Callable[[], bool], otherwise: str, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while not wanted():
        status = agent.poll()
        if status is not None or time.monotonic() > deadline:
            how = otherwise if status is None else f"ended with status {status}"
            kind = UnsupportedError if status == EXIT_UNSUPPORTED else ZerohopError
            raise kind(f"zerohop run {how}: {_words(log).strip()[-2000:]}", hint="run zerohop doctor")
        time.sleep(0.005)


def _words(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")
