"""A caller from outside whose requests come before it knows that it is to keep no table: GOAWAY sends it elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import network
from support.mesh import MeshFactory, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
PORT = 18589
SERVICE = service("server", PORT)
POLICY = policy("eve", {"when": [{"key": "request.headers[x-user]", "values": ["eve"]}]}, action="DENY", app="server")

SERVER = """
import sys
from concurrent import futures
import grpc
def answer(request, context):
    print('handled', flush=True)
    return request
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(answer) if details.method.startswith('/t.A/') else None
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port(f'127.0.0.1:{sys.argv[1]}')
server.start()
print('ready', flush=True)
server.wait_for_termination()
"""

# Sends three calls without reading, then tells which frames come: [type, stream, what it says].
CLIENT = """
import json, socket, struct, sys, time
sys.path.insert(0, sys.argv[1])
from frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, literal
from hpack import Decoder
GOAWAY = 7
def block(path, user):
    return (b'\\x83\\x86' + path + b'\\x01\\x01a' + literal(b'content-type', b'application/grpc')
            + literal(b'te', b'trailers') + literal(b'x-user', user))
def call(stream, path, user):
    return frame(HEADERS, END_HEADERS, stream, block(path, user)) + frame(DATA, END_STREAM, stream, bytes(5))
inserted = lambda path: b'\\x44' + bytes((len(path),)) + path
connection = socket.create_connection(('127.0.0.1', int(sys.argv[2])))
connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b'') + call(1, inserted(b'/t.A/One'), b'eve'))
time.sleep(0.3)
connection.sendall(call(3, b'\\xbe', b'ann') + call(5, inserted(b'/t.A/Two'), b'ann'))
time.sleep(0.3)
connection.settimeout(1)
data, decoder = b'', Decoder()
try:
    while part := connection.recv(65536):
        data += part
    print(json.dumps(['end', 0, None]))
except TimeoutError:
    pass
while len(data) >= 9:
    length, kind, stream = int.from_bytes(data[:3], 'big'), data[3], int.from_bytes(data[5:9], 'big')
    payload, data = data[9:9 + length], data[9 + length:]
    if kind == HEADERS:
        print(json.dumps([kind, stream, dict(decoder.decode(payload)).get('grpc-status')]))
    elif kind == GOAWAY:
        print(json.dumps([kind, stream, list(struct.unpack('!II', payload[:8]))]))
"""


def test_calls_before_the_settings(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    mesh = mesh_factory([workload("t/server"), workload("t/client"), SERVICE, POLICY])
    server = mesh.exec_popen(
        "t/server", [sys.executable, "-c", SERVER, str(PORT)], netns.name, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    told = subprocess.run(
        ["ip", "netns", "exec", netns.name, sys.executable, "-c", CLIENT, str(FOLDER), str(PORT)],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    frames = [json.loads(line) for line in told.splitlines()]
    goaway, headers = 7, 1
    assert [goaway, 0, [1, 0]] in frames, frames
    assert [headers, 1, "7"] in frames, frames
    # Calls 3 and 5 are the client's to make again: what their server says of them it hears too late.
    first = frames.index([goaway, 0, [1, 0]])
    later = [at for at, (kind, stream, _) in enumerate(frames) if kind == headers and stream > 1]
    assert all(at > first for at in later), frames
    assert all(frames[at][2] != "0" for at in later), frames
    assert not any(kind == "end" for kind, *_ in frames), frames
    server.kill()
    assert server.communicate(timeout=10)[0] == ""
    flows = [json.loads(line) for line in mesh.run("flows", "--json", "--kind", "call").stdout.splitlines()]
    assert [(each["stream"], each["verdict"]) for each in flows] == [(1, "DENY")]
    assert mesh.totals()["denied_connections"] == 0
