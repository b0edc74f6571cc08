"""The same verdicts as Envoy's own RBAC filter, on random policies and calls, through real connections to both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from interop.rbac.randomly import PATHS, Call, Connection, Maker
from interop.rbac.translated import filters
from interop.stage import located, need
from support import network
from support.machine import long_run
from support.mesh import Mesh, end_program, workload
from support.policies import service

FOLDER = Path(__file__).parent
POLICIES = 5_000 if long_run() else 300
PORTS = range(20_000, 20_060)
SEED = int(os.environ.get("ZEROHOP_RBAC_SEED", "1"))
CALLERS = {"shop/web": "web", "bank/teller": "teller"}
DENIED = 7
TRANSPORT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"

Fields = Mapping[str, Any]


@pytest.fixture(autouse=True)
def programs() -> None:
    need("envoy", "openssl")
    pytest.importorskip("grpc", reason="needs grpcio")


def certificate(folder: Path, name: str, spiffe: str) -> list[str]:
    """A self-signed one with a SPIFFE name: the paths of it and its key."""
    paths = [str(folder / f"{name}.pem"), str(folder / f"{name}.key")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    more = ["-days", "1", "-subj", f"/CN={name}", "-addext", f"subjectAltName=URI:{spiffe}"]
    subprocess.run([*command, *more, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


class Callers:
    """A caller for each identity, kept for all jobs."""

    def __init__(self) -> None:
        self.programs: dict[str | None, subprocess.Popen[str]] = {}

    def ask(self, connections: Sequence[Connection], *, tls: bool) -> list[list[int | None]]:
        for each in connections:
            calls = [{"path": call.path, "host": call.host, "headers": call.headers} for call in each.calls]
            job = {
                "source": each.source, "destination": each.destination, "port": each.port, "tls": tls, "calls": calls,
            }  # fmt: skip
            pipe = self.programs[each.caller].stdin
            assert pipe is not None
            pipe.write(json.dumps(job) + "\n")
            pipe.flush()
        found = []
        for each in connections:
            output = self.programs[each.caller].stdout
            assert output is not None
            found.append(json.loads(output.readline()))
        return found

    def close(self) -> None:
        for program in self.programs.values():
            end_program(program)


PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


BASE = [
    workload("rbac/server"),
    *(workload(key, serviceAccount=account) for key, account in CALLERS.items()),
    *(
        {**service("server", port, namespace="rbac"), "metadata": {"name": f"s{port}", "namespace": "rbac"}}
        for port in PORTS
    ),
]


class Rivals:
    """zerohop with a gRPC server in one network namespace, Envoy with the same addresses and ports in another."""

    def __init__(self, folder: Path, ours: network.Namespace, theirs: network.Namespace) -> None:
        self.folder, self.theirs = folder, theirs
        self.mesh = Mesh(folder, BASE)
        self.envoy: subprocess.Popen[str] | None = None
        self.own, self.other = Callers(), Callers()
        self.server: subprocess.Popen[str] | None = None
        self.space = ours

    def start(self) -> None:
        self.mesh.start()
        paths = ",".join(PATHS)
        argv = [sys.executable, str(FOLDER / "server.py"), paths, *map(str, PORTS)]
        self.server = self.mesh.exec_popen("rbac/server", argv, self.space.name, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "ready\n"
        self.roots = certificate(self.folder, "envoy", "spiffe://cluster.local/ns/rbac/sa/server")
        bundle = Path(self.roots[0]).read_text()
        for key, account in [*CALLERS.items(), (None, "")]:
            script = [sys.executable, str(FOLDER / "caller.py")]
            certified = []
            if key is not None:
                namespace = key.partition("/")[0]
                certified = certificate(self.folder, account, f"spiffe://cluster.local/ns/{namespace}/sa/{account}")
                bundle += Path(certified[0]).read_text()
                self.own.programs[key] = self.mesh.exec_popen(key, script, self.space.name, **PIPES)
            else:
                command = ["ip", "netns", "exec", self.space.name, *script]
                self.own.programs[key] = subprocess.Popen(command, start_new_session=True, **PIPES)
            command = ["ip", "netns", "exec", self.theirs.name, *script, *certified]
            self.other.programs[key] = subprocess.Popen(command, start_new_session=True, **PIPES)
        (self.folder / "roots.pem").write_text(bundle)

    def close(self) -> None:
        self.own.close()
        self.other.close()
        if self.envoy is not None:
            end_program(self.envoy)
        self.mesh.close()

    def listener(self, port: int, policies: Sequence[Fields]) -> Fields:
        chain = {"filename": self.roots[0]}, {"filename": self.roots[1]}
        tls = {
            "@type": TRANSPORT,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [{"certificate_chain": chain[0], "private_key": chain[1]}],
                "validation_context": {"trusted_ca": {"filename": str(self.folder / "roots.pem")}},
            },
        }
        answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
        manager = {
            "@type": MANAGER,
            "stat_prefix": "all",
            "codec_type": "HTTP2",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
            "http_filters": [*filters(policies), {"name": "router", "typed_config": {"@type": ROUTER}}],
        }
        return {
            "name": f"l{port}",
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
            "filter_chains": [
                {
                    "filters": [{"name": "http", "typed_config": manager}],
                    "transport_socket": {"name": "tls", "typed_config": tls},
                }
            ],
        }

    def configure(self, batch: Mapping[int, Sequence[Fields]]) -> None:
        generation = self.mesh.generation()
        self.mesh.write_config([*BASE, *(policy for policies in batch.values() for policy in policies)])
        if self.envoy is not None:
            end_program(self.envoy)
        listeners = [self.listener(port, policies) for port, policies in batch.items()]
        path, log = self.folder / "envoy.json", self.folder / "envoy.log"
        path.write_text(json.dumps({"static_resources": {"listeners": listeners}}))
        command = [located("envoy"), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
        with log.open("w") as output:
            self.envoy = subprocess.Popen(
                ["ip", "netns", "exec", self.theirs.name, *command],
                stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip
        self.mesh.wait_for_generation(generation + 1)
        deadline = time.monotonic() + 30
        while self.theirs.run("ss", "-Htln").count(":20") < len(batch):
            assert self.envoy.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def handled(self) -> int:
        assert self.server is not None
        os.killpg(self.server.pid, 15)
        output, _ = self.server.communicate(timeout=30)
        return int(output)


@pytest.fixture
def rivals(kernel: None, tmp_path: Path) -> Iterator[Rivals]:
    with network.namespace("z") as ours, network.namespace("e") as theirs:
        both = Rivals(tmp_path, ours, theirs)
        try:
            both.start()
            yield both
        finally:
            both.close()


def told(policies: Sequence[Fields], connection: Connection, call: Call, found: tuple[Any, Any]) -> str:
    listed = "\n".join(json.dumps(each["spec"]) for each in policies)
    return f"seed {SEED}: zerohop says {found[0]}, Envoy {found[1]}\n{connection}\n{call}\n{listed}"


def test_verdicts_are_envoys(rivals: Rivals) -> None:
    random = Random(SEED)
    made = allowed = 0
    verdicts: Counter[bool] = Counter()
    differences = []
    while made < POLICIES:
        makers = {port: Maker(random, port) for port in PORTS}
        batch = {port: maker.policies(f"s{port}", "rbac") for port, maker in makers.items()}
        made += sum(map(len, batch.values()))
        rivals.configure(batch)
        connections = [each for maker in makers.values() for each in maker.connections()]
        ours = rivals.own.ask(connections, tls=False)
        theirs = rivals.other.ask(connections, tls=True)
        for connection, own, other in zip(connections, ours, theirs, strict=True):
            assert None not in other, (connection, other, (rivals.folder / "envoy.log").read_text())
            for call, mine, its in zip(connection.calls, own, other, strict=True):
                denied = mine is None or mine == DENIED
                verdicts[denied] += 1
                allowed += mine == 0
                if denied != (its == DENIED) or (not denied and mine != 0):
                    differences.append(told(batch[connection.port], connection, call, (mine, its)))
    assert not differences, f"{len(differences)} of {verdicts.total()}\n" + "\n\n".join(differences[:5])
    assert 0.15 < verdicts[True] / verdicts.total() < 0.85, verdicts
    assert rivals.handled() == allowed
    assert rivals.mesh.totals()["errors"] == {}
