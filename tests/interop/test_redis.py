"""Redis with its own benchmark: single commands, pipelines, large values."""

from __future__ import annotations

import hashlib
import signal

import pytest

from interop.conftest import Payload
from interop.stage import CLIENT, PORT, SERVER, Stage, located, need

REQUESTS = 10_000


@pytest.mark.parametrize("threads", ["1", "2"], ids=["one-thread", "io-threads"])
def test_redis(play: Stage, files: Payload, threads: str) -> None:
    need("redis-server", "redis-benchmark", "redis-cli")
    memory_only = ["--save", "", "--appendonly", "no"]
    threading = ["--io-threads", threads, "--io-threads-do-reads", "yes"]
    server = play.serve(
        SERVER,
        [located("redis-server"), "--port", str(PORT), "--bind", "127.0.0.1", *memory_only, *threading],
        PORT,
    )
    connect = ["-h", "127.0.0.1", "-p", str(PORT)]
    pushes = 0

    def benchmark(*options: str, requests: int = REQUESTS) -> None:
        nonlocal pushes
        output = play.run(CLIENT, ["redis-benchmark", *connect, "--csv", "-n", str(requests), *options])
        rows = [line.split(",") for line in output.splitlines() if line.startswith('"')]
        figures = [float(row[1].strip('"')) for row in rows if not row[0].startswith('"test')]
        tests = options[options.index("-t") + 1].split(",")
        assert len(figures) == len(tests), output
        assert all(figure > 0 for figure in figures), output
        pushes += requests if "lpush" in tests else 0

    benchmark("-t", "set,get,incr,lpush", "-c", "20")
    benchmark("-t", "set,get,lpush", "-c", "10", "-P", "16")
    # What only configures (redis-benchmark's first connection, redis-cli) connects without blocking and then blocks.
    play.expect_shortcut(allowed=["reader_blocking"])
    benchmark("-t", "set,get", "-c", "4", "-d", "1000000", requests=100)

    def cli(*command: str, text: str | None = None) -> str:
        return play.run(CLIENT, ["redis-cli", *connect, *command], text=text)

    assert cli("LLEN", "mylist") == f"{pushes}\n"
    # A value of 16 MB, as text, there and back.
    value = (files.folder / "large").read_bytes().hex()
    assert cli("-x", "SET", "large", text=value) == "OK\n"
    back = cli("--raw", "GET", "large").removesuffix("\n")
    assert hashlib.sha256(bytes.fromhex(back)).hexdigest() == files.sums["large"]

    play.expect_shortcut(allowed=["bulk", "reader_blocking"])
    assert play.stop(server, signal.SIGTERM) == 0
