"""Two workloads, `shortcut: Always`, over loopback through the real data path: every byte is compared.

The client is this process, the server a child; each makes its sockets in its own workload's cgroup. asyncio's sockets
do not block, which is what the short-cut asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

from zerohop.compiler import Tables, WorkloadEntry
from zerohop.kernel import cgroup, lifecycle, tables
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.drain import members
from zerohop.kernel.status import Totals, read_status

NAMESPACE, CLIENT, SERVER = "kernels", "client", "server"
ALWAYS = 2
ECHO, SINK = b"E", b"S"
SEED = 6

ROUND_TRIPS = 300
PIPELINED_BYTES = 512 << 10  # below what counts as bulk, BULK_RUN_BYTES in bpf/shared/bounds.h
ONE_WAY_BYTES = 4 << 20  # beyond it
MOST_BYTES = 64 << 20
LEAVE_SECONDS = 20.0
SETTLE_SECONDS = 10.0
PART_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """`stayed`: ends of the one-way connection that were still short-cut's members at its end.

    `problems` is empty when all went well.
    """

    shortcut_bytes: int
    tcp_bytes: int
    stayed: int
    problems: list[str]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def manage(path: DataPath, instance: str) -> None:
    """Makes the two workloads known and attaches to their cgroups, as the agent does."""
    entries = {f"{NAMESPACE}/{name}": WorkloadEntry(NAMESPACE, name, "default", ALWAYS) for name in (CLIENT, SERVER)}
    compiled = Tables(entries, {}, {}, {}, frozenset())
    tables.apply(path, compiled, tables.wanted_cgroups(instance, compiled, {}), 1)
    cgroup.ensure(cgroup.instance_path(instance))
    path.attach(cgroup.instance_path(instance), policies=False)


def check(path: DataPath, instance: str, note: Callable[[str], None]) -> Answer:
    """Echo, one-way transfer, and `clean` under an open connection; the instance is gone afterwards.

    `note` hears each part's name as it begins. Raises `TimeoutError` when one does not come to an end.
    """
    with _server(instance) as port:
        cgroup.enter(cgroup.exec_path(instance, NAMESPACE, CLIENT))
        return asyncio.run(_check(path, instance, port, note))


async def _check(path: DataPath, instance: str, port: int, note: Callable[[str], None]) -> Answer:
    problems: list[str] = []
    note("echo")
    echoed = await asyncio.wait_for(_echo(port, problems), PART_SECONDS)
    note("one way")
    one_way, stayed = await asyncio.wait_for(_one_way(path, port, problems), PART_SECONDS)
    sent = echoed + one_way
    note("counters")
    totals = await _settled(path)
    opened = (totals.shortcut_connections_opened, totals.connections_opened)
    wanted, reasons = (2, {"bulk": 1}) if path.settings().shortcut else (0, {"kernel": 2})
    if opened != (wanted, 2):
        problems.append(f"{opened[0]} of {opened[1]} connections were short-cut, not {wanted} of 2")
    if (totals.shortcut_bytes >= PIPELINED_BYTES) != bool(wanted):
        problems.append(f"{totals.shortcut_bytes} bytes were short-cut")
    if totals.shortcut_bytes + totals.tcp_bytes != sent:
        problems.append(f"{totals.shortcut_bytes} + {totals.tcp_bytes} bytes counted, {sent} sent")
    if totals.not_shortcut != reasons:
        problems.append(f"not short-cut: {totals.not_shortcut}, expected {reasons}")
    if totals.errors:
        problems.append(f"helpers failed: {totals.errors}")
    note("clean")
    await asyncio.wait_for(_survives_clean(instance, port, problems), PART_SECONDS)
    return Answer(totals.shortcut_bytes, totals.tcp_bytes, stayed, problems)


async def _echo(port: int, problems: list[str]) -> int:
    """Messages of random sizes one by one, then many under way; returns the bytes of both directions."""
    source = random.Random(SEED)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ECHO)
    count = 0
    for number in range(ROUND_TRIPS):
        message = source.randbytes(source.choice((1, 24, 100, 1000, source.randint(1, 20000))))
        writer.write(message)
        count += len(message)
        if await reader.readexactly(len(message)) != message:
            problems.append(f"echo {number}, {len(message)} bytes: other bytes came back")
            break
    stream = source.randbytes(PIPELINED_BYTES)
    answer = asyncio.create_task(reader.readexactly(len(stream)))
    position = 0
    while position < len(stream):
        size = source.randint(1, 8192)
        writer.write(stream[position : position + size])
        position += size
        await writer.drain()
    if await answer != stream:
        problems.append("pipelined echo: other bytes came back")
    writer.close()
    await writer.wait_closed()
    return len(ECHO) + 2 * (count + len(stream))


async def _one_way(path: DataPath, port: int, problems: list[str]) -> tuple[int, int]:
    """Sends until the connection has left the short-cut; returns the bytes of both directions, and who stayed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(SINK)
    source = random.Random(SEED)
    digest = hashlib.sha256()
    count = 0
    deadline = time.monotonic() + LEAVE_SECONDS
    stayed = 2
    while count < MOST_BYTES and time.monotonic() < deadline and (count < ONE_WAY_BYTES or stayed):
        block = source.randbytes(256 << 10)
        digest.update(block)
        count += len(block)
        writer.write(block)
        await writer.drain()
        if count >= ONE_WAY_BYTES:
            await asyncio.sleep(0.02)  # the grace before leaving is time, not bytes
        stayed = len(members(path))
    writer.write_eof()
    answer = await reader.read()
    if answer != digest.digest():
        problems.append(f"one way, {count} bytes: other bytes arrived")
    writer.close()
    await writer.wait_closed()
    return len(SINK) + count + len(answer), stayed


async def _settled(path: DataPath) -> Totals:
    """The totals, once the server's ends are closed too."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        status = read_status(path)
        if not status.open_connections or time.monotonic() > deadline:
            return status.totals
        await asyncio.sleep(0.05)


async def _survives_clean(instance: str, port: int, problems: list[str]) -> None:
    """An open connection lives on as plain TCP when everything is removed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ECHO + b"before")
    if await reader.readexactly(6) != b"before":
        problems.append("other bytes came back before clean")
    _, staying = lifecycle.remove(instance)
    if staying:
        problems.append(f"{staying} sockets stayed in the short-cut at clean")
    writer.write(b"after!")
    if await reader.readexactly(6) != b"after!":
        problems.append("other bytes came back after clean")
    writer.close()
    await writer.wait_closed()


@contextlib.contextmanager
def _server(instance: str) -> Iterator[int]:
    """The server's process; yields its port."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    process = context.Process(target=_serve, args=(instance, its), daemon=True)
    process.start()
    try:
        if not mine.poll(SETTLE_SECONDS):
            raise RuntimeError("the server did not start")
        yield mine.recv()
    finally:
        process.terminate()
        process.join()


def _serve(instance: str, announce: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        announce.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    cgroup.enter(cgroup.exec_path(instance, NAMESPACE, SERVER))
    asyncio.run(serve())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    kind = await reader.readexactly(1)
    digest = hashlib.sha256()
    while data := await reader.read(65536):
        if kind == ECHO:
            writer.write(data)
            await writer.drain()
        else:
            digest.update(data)
    if kind == SINK:
        writer.write(digest.digest())
    writer.close()
