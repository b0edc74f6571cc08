"""Runs scenarios and prints what they noted: `python tests/support/parity MODE [SCENARIO…]`.

Each runs in a process of its own; one that does not end within a time is killed and its notes are "hang".
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback

import calls  # noqa: F401
import endings  # noqa: F401
import events  # noqa: F401
import options  # noqa: F401
import rings  # noqa: F401
import sharing  # noqa: F401
import waits  # noqa: F401
from harness import Scene, scenarios

LIMIT_SECONDS = 10.0
AT_ONCE = 6


def perform(name: str, mode: str, result: int) -> None:
    """In the child: runs the scenario, writes its notes."""
    os.setpgid(0, 0)
    scene = Scene(mode)
    try:
        scenarios[name][1](scene)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        scene.note("raised", f"{type(error).__name__}: {error}")
        print(f"{name}: {error} ({where.name}:{where.lineno})", file=sys.stderr)
    with os.fdopen(result, "w") as output:
        json.dump(scene.notes, output)
    os._exit(0)


class Running:
    def __init__(self, name: str, mode: str) -> None:
        self.name = name
        self.started = time.monotonic()
        self.text = b""
        self.output, inner = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.output)
            perform(name, mode, inner)
        os.close(inner)

    def finish(self) -> object:
        """Ends what may be left of the process and its children; its notes."""
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os.waitpid(self.pid, 0)
        os.close(self.output)
        try:
            return json.loads(self.text)
        except ValueError:
            return "hang" if time.monotonic() - self.started >= LIMIT_SECONDS else "died"


def main() -> None:
    mode, *names = sys.argv[1:]
    waiting = [name for name in (names or scenarios) if mode in scenarios[name][0]]
    results: dict[str, object] = {}
    running: dict[int, Running] = {}
    sys.stdout.flush()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            each = Running(waiting.pop(0), mode)
            running[each.output] = each
        ready, _, _ = select.select(list(running), [], [], 0.2)
        for fd, each in list(running.items()):
            over = time.monotonic() - each.started >= LIMIT_SECONDS
            if fd in ready:
                part = os.read(fd, 1 << 16)
                each.text += part
                over = over or not part
            if over:
                results[each.name] = each.finish()
                del running[fd]
    json.dump(results, sys.stdout, sort_keys=True)


main()
