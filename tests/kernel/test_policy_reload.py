"""Policies that change all the time, under load: each call is judged by one of them, and none fails for the change."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from support import network
from support.machine import long_run
from support.mesh import MeshFactory, workload
from support.policies import policy, service
from zerohop.kernel.datapath import DataPath

pytestmark = pytest.mark.usefixtures("kernel")

PORT = 18580
SECONDS = 60 if long_run() else 6
SERVICE = service("server", PORT)

SERVER = """
import sys
from concurrent import futures
import grpc
def one(request, context):
    return request
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(one) if details.method.startswith('/t.A/') else None
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port(f'127.0.0.1:{sys.argv[1]}')
server.start()
print('listening', flush=True)
server.wait_for_termination()
"""

# Calls what every version allows, what none does, and what takes turns, until its standard input ends.
CLIENT = """
import collections, json, sys, threading
import grpc
channel = grpc.insecure_channel(f'127.0.0.1:{sys.argv[1]}', options=[('grpc.enable_retries', 0)])
found = collections.Counter()
over = threading.Event()
CALLS = ('/t.A/Always', 'ann'), ('/t.A/Never', 'ann'), ('/t.A/Always', 'eve'), ('/t.A/Turns', 'ann')
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
def status(path, user):
    try:
        channel.unary_unary(path)(b'a' * 50, timeout=20, metadata=[('x-user', user)])
        return 0
    except grpc.RpcError as error:
        return error.code().value[0]
def run():
    while not over.is_set():
        for path, user in CALLS:
            found[f'{path} {user} {status(path, user)}'] += 1
threads = [threading.Thread(target=run) for _ in range(4)]
[each.start() for each in threads]
[each.join() for each in threads]
print(json.dumps(found))
"""


def version(number: int) -> list[dict[str, Any]]:
    paths = ["/t.A/Always", f"/t.Other/Number{number}*", *(["/t.A/Turns"] if number % 2 else [])]
    return [
        policy("paths", {"to": [{"operation": {"paths": paths}}]}, app="server"),
        policy(
            f"users-{number % 3}",
            {"when": [{"key": "request.headers[x-user]", "values": ["eve", f"number-{number}"]}]},
            action="DENY", app="server",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("managed", [True, False], ids=["workload", "outside"])
def test_ten_changes_a_second(mesh_factory: MeshFactory, netns: network.Namespace, managed: bool) -> None:
    import json

    base = [workload("t/server"), workload("t/client"), SERVICE]
    mesh = mesh_factory([*base, *version(0)])
    server = mesh.exec_popen(
        "t/server", [sys.executable, "-c", SERVER, str(PORT)], netns.name, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    argv = [sys.executable, "-c", CLIENT, str(PORT)]
    if managed:
        client = mesh.exec_popen("t/client", argv, netns.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    else:
        client = subprocess.Popen(
            ["ip", "netns", "exec", netns.name, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    began = mesh.generation()
    deadline = time.monotonic() + SECONDS
    number = 0
    with DataPath.open(mesh.instance) as path:
        while time.monotonic() < deadline:
            number += 1
            mesh.write_config([*base, *version(number)])
            time.sleep(0.1)
            # A busy machine takes fewer a second.
            while path.settings().generation - began < 0.7 * number and time.monotonic() < deadline:
                time.sleep(0.02)
    found = json.loads(client.communicate("", timeout=60)[0])
    statuses: dict[str, dict[int, int]] = {}
    for key, count in found.items():
        path, user, status = key.split()
        statuses.setdefault(f"{path} {user}", {})[int(status)] = count
    assert set(statuses["/t.A/Always ann"]) == {0}, found
    assert set(statuses["/t.A/Never ann"]) == {7}, found
    assert set(statuses["/t.A/Always eve"]) == {7}, found
    assert set(statuses["/t.A/Turns ann"]) == {0, 7}, found
    assert mesh.generation() - began >= 0.7 * number
    assert mesh.totals()["errors"] == {}
