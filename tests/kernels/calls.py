"""gRPC calls through the real data path, in both hooks: every byte is compared, and every figure that is counted."""

from __future__ import annotations

import random
import socket
import tempfile
import time
from pathlib import Path

import sockets
import traffic
import writers
import yaml

from support import frames
from support.frames import END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, literal
from zerohop.compiler import compile_tables
from zerohop.config import load
from zerohop.kernel import cgroup, lifecycle, tables
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.telemetry import Calls, read_calls, read_reading

PORT = 18300
VIRTUAL = ("240.0.0.10", 80)
STREAMS = range(1, 101, 2)
LARGEST_PIECE = 60
SETTLE_SECONDS = 10.0


def workload(name: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": traffic.NAMESPACE, "labels": {"app": name}}
    return {"apiVersion": "zerohop.io/v1alpha1", "kind": "Workload", "metadata": metadata}


CONFIGURATION = [
    workload(traffic.CLIENT),
    workload(traffic.SERVER),
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "calls", "namespace": traffic.NAMESPACE},
        "spec": {
            "clusterIPs": [VIRTUAL[0]],
            "selector": {"app": traffic.SERVER},
            "ports": [{"name": "grpc", "port": VIRTUAL[1], "targetPort": PORT, "appProtocol": "grpc"}],
        },
    },
]

# SETTINGS_HEADER_TABLE_SIZE: what is announced, and what has to arrive.
ANNOUNCED, LOWERED = (frame(SETTINGS, 0, 0, b"\0\1" + size.to_bytes(4, "big")) for size in (65_536, 4_096))


def message(size: int) -> bytes:
    return b"\0" + size.to_bytes(4, "big") + bytes(size)


def check(instance: str) -> dict[str, object]:
    """`problems` is empty when all went well; the instance is gone afterwards."""
    problems: list[str] = []
    path, _ = lifecycle.obtain(instance)
    with path:
        manage(path, instance)
        server = cgroup.exec_path(instance, traffic.NAMESPACE, traffic.SERVER)
        client = cgroup.exec_path(instance, traffic.NAMESPACE, traffic.CLIENT)
        cgroup.ensure("/outside")
        for where, dialled in ((client, VIRTUAL), ("/outside", None)):
            ends = sockets.pair(where, server, PORT, dialled)
            if dialled and ends[0].getpeername() != dialled:
                problems.append(f"the peer of who dialled {dialled} is {ends[0].getpeername()}")
            problems += converse(*ends, random.Random(traffic.SEED), where)
        problems += compare(ended(path, 2 * len(STREAMS)))
        problems += writers.overlap(*sockets.pair(client, server, PORT))
        reading = read_reading(path)
        if (reading.recognised, reading.unread) != ({"http2": 3}, {"writers_overlap": 1}):
            problems.append(f"not read as they should be: {reading}")
    cgroup.enter("/")
    lifecycle.remove(instance)
    (cgroup.mount_point() / "outside").rmdir()
    return {"calls": 2 * len(STREAMS), "problems": problems}


def manage(path: DataPath, instance: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(CONFIGURATION, file)
        file.flush()
        compiled = compile_tables(load(Path(file.name)))
    tables.apply(path, compiled, tables.wanted_cgroups(instance, compiled, {}), 1)
    cgroup.ensure(cgroup.instance_path(instance))
    path.attach(cgroup.instance_path(instance), policies=False)


def converse(client: socket.socket, server: socket.socket, source: random.Random, where: str) -> list[str]:
    """Requests that are cut anywhere, then their responses."""
    requests = b"".join(
        frame(HEADERS, END_HEADERS, each, frames.REQUEST) + frame(frames.DATA, END_STREAM, each, message(each))
        for each in STREAMS
    )
    responses = b"".join(
        frame(HEADERS, END_HEADERS, each, b"\x88" + literal(b"content-type", b"application/grpc"))
        + frame(frames.DATA, 0, each, message(2 * each))
        + frame(HEADERS, END_HEADERS | END_STREAM, each, literal(b"grpc-status", b"0"))
        for each in STREAMS
    )
    problems = []
    for sender, receiver, opening, arriving, content in (
        (client, server, frames.PREFACE + ANNOUNCED, frames.PREFACE + LOWERED, requests),
        (server, client, ANNOUNCED, LOWERED, responses),
    ):
        sent, received = opening + content, b""
        while sent:
            size = source.randint(1, LARGEST_PIECE)
            sender.send(sent[:size])
            received += sockets.receive(receiver, len(sent[:size]))
            sent = sent[size:]
        if received != arriving + content:
            problems.append(f"{where}: other bytes arrived")
    client.close()
    server.close()
    return problems


def ended(path: DataPath, count: int) -> list[Calls]:
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        rows = [row for row in read_calls(path) if row.ending != "open"]
        if sum(row.calls for row in rows) >= count or time.monotonic() > deadline:
            return rows
        time.sleep(0.1)


def compare(rows: list[Calls]) -> list[str]:
    """One row for each client: its calls, messages and bytes."""
    sizes = len(STREAMS) * 5 + sum(STREAMS), len(STREAMS) * 5 + 2 * sum(STREAMS)
    wanted = ("/torture.Frames/Send", "complete", 0, len(STREAMS), len(STREAMS), len(STREAMS), *sizes)
    found = [
        (
            row.method, row.ending, row.grpc_status, row.calls, row.request_messages, row.response_messages,
            row.request_bytes, row.response_bytes,
        )
        for row in rows
    ]  # fmt: skip
    return [] if found == [wanted] * 2 else [f"counted {found}, wanted twice {wanted}"]
