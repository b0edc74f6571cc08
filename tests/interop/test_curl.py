"""curl against an asyncio server: downloads, uploads, keep-alive."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from interop.conftest import PEERS, Payload
from interop.stage import CLIENT, PORT, SERVER, Stage, need

QUIET = ["curl", "--silent", "--show-error", "--fail", "--max-time", "40"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_curl(play: Stage, files: Payload, host: str) -> None:
    need("curl")
    url = f"http://{host}:{PORT}"
    web = [sys.executable, str(PEERS / "web_asyncio.py"), str(PORT), str(files.folder)]
    play.serve(SERVER, web, PORT)

    # One process, one connection, many requests.
    names = ["tiny", "small", "medium"] * 20
    several = [part for number, name in enumerate(names) for part in (f"{url}/{name}", "-o", f"{number}-{name}")]
    reused = play.run(CLIENT, [*QUIET, "-w", "%{num_connects}\\n", *several])
    assert reused.split() == ["1", *["0"] * (len(names) - 1)]
    for number, name in enumerate(names):
        assert sha256(play.folder / f"{number}-{name}") == files.sums[name]
    play.expect_shortcut()

    play.run(CLIENT, [*QUIET, f"{url}/huge", "-o", "huge"])
    assert sha256(play.folder / "huge") == files.sums["huge"]
    for name in ("tiny", "medium", "large", "huge"):
        assert play.run(CLIENT, [*QUIET, "-T", str(files.folder / name), f"{url}/sum"]) == files.sums[name]
    play.expect_shortcut(allowed=["bulk"])
