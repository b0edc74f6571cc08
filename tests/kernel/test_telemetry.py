"""Metrics, flows, top and the access log say of real calls what the programs know of them."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.mesh import Mesh, MeshFactory, workload
from zerohop.errors import ZerohopError
from zerohop.kernel import libbpf
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.telemetry import FlowReader, read_calls

PORT = 18393
CALLER = Path(__file__).resolve().parents[1] / "support" / "grpc_calls.py"
DASHBOARD = Path(__file__).resolve().parents[2] / "packaging" / "grafana" / "zerohop.json"

DOCUMENTS = [
    {**workload("t/server"), "metadata": {"name": "server", "namespace": "t", "labels": {"app": "s", "version": "v3"}}},
    workload("t/client"),
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "echo", "namespace": "t"},
        "spec": {"selector": {"app": "s"}, "ports": [{"name": "grpc", "port": PORT, "appProtocol": "grpc"}]},
    },
]

# Of one run of the caller: method to calls, request and response messages and bytes.
CALLS = 30
MADE = {
    "/test.Echo/One": (CALLS, CALLS, CALLS, CALLS * 105, CALLS * 105),
    "/test.Echo/Five": (1, 1, 5, 6, 30),
    "/test.Echo/None": (1, 1, 0, 5, 0),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Service(Mesh):
    """A mesh whose agent serves metrics and writes an access log."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.metrics_port = free_port()
        self.access_log = self.folder / "access.log"

    def command(self, *arguments: str) -> list[str]:
        if arguments[0] != "run":
            return super().command(*arguments)
        more = ["--metrics", f"127.0.0.1:{self.metrics_port}", "--access-log", str(self.access_log)]
        return super().command(*arguments[: arguments.index("--metrics")], *more)

    def scrape(self) -> dict[str, list[Any]]:
        """Metric family to samples."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {family.name: family.samples for family in text_string_to_metric_families(text)}


@pytest.fixture(scope="module")
def service(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Calls by a managed client and by one that is not, all ended."""
    mesh = Service(tmp_path_factory.mktemp("telemetry"), DOCUMENTS)
    try:
        mesh.start()
        server = mesh.exec_popen(
            "t/server", [sys.executable, str(CALLER), "serve", str(PORT)], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        command = [sys.executable, str(CALLER), "call", str(PORT), str(CALLS)]
        assert mesh.exec_popen("t/client", command).wait(60) == 0
        subprocess.run(command, check=True, timeout=60)
        deadline = time.monotonic() + 10
        with DataPath.open(mesh.instance) as path:
            while sum(row.calls for row in read_calls(path) if row.ending != "open") < 2 * (CALLS + 2):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield mesh
    finally:
        mesh.close()


def total(samples: list[Any], name: str, **labels: str) -> float:
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
    )


def test_istios_metrics(service: Service) -> None:
    families = service.scrape()
    each = sum(made[0] for made in MADE.values())
    requests = families["istio_requests"]
    for reporter, client in (("source", "client"), ("destination", "client"), ("destination", "unknown")):
        who = {"reporter": reporter, "source_workload": client, "destination_workload": "server"}
        assert total(requests, "istio_requests_total", **who) == each
        assert total(requests, "istio_requests_total", **who, grpc_response_status="12") == 1
    assert total(requests, "istio_requests_total", reporter="source", source_workload="unknown") == 0
    labels = next(sample.labels for sample in requests if sample.labels["source_workload"] == "client")
    assert (
        labels.items()
        >= {
            "destination_app": "s",
            "destination_version": "v3",
            "destination_canonical_service": "s",
            "destination_canonical_revision": "v3",
            "destination_service": "echo.t.svc.cluster.local",
            "destination_service_name": "echo",
            "destination_service_namespace": "t",
            "destination_principal": "spiffe://cluster.local/ns/t/sa/default",
            "request_protocol": "grpc",
            "response_code": "200",
            "response_flags": "-",
            "connection_security_policy": "none",
        }.items()
    )
    durations = families["istio_request_duration_milliseconds"]
    prefix = "istio_request_duration_milliseconds"
    who = {"reporter": "source", "grpc_response_status": "0"}
    assert (
        total(durations, f"{prefix}_count", **who)
        == total(durations, f"{prefix}_bucket", **who, le="+Inf")
        == CALLS + 1
    )
    bounds = {sample.labels["le"] for sample in durations if sample.name.endswith("_bucket")}
    assert {float(bound) for bound in bounds - {"+Inf"}} == {
        0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6, 3.6e6,
    }  # fmt: skip
    sizes = families["istio_response_bytes"]
    assert total(sizes, "istio_response_bytes_sum", reporter="source") == CALLS * 105 + 30
    assert total(sizes, "istio_response_bytes_bucket", reporter="source", le="100") == 2
    messages = families["istio_request_messages"]
    assert total(messages, "istio_request_messages_total", reporter="source") == CALLS + 2


def test_its_own_metrics_by_method(service: Service) -> None:
    families = service.scrape()
    for method, made in MADE.items():
        who = {"source": "client", "destination": "server", "service": "t/echo", "method": method}
        names = ("calls", "request_messages", "response_messages", "request_bytes", "response_bytes")
        assert tuple(total(families[f"zerohop_{name}"], f"zerohop_{name}_total", **who) for name in names) == made
        assert total(families["zerohop_calls_in_flight"], "zerohop_calls_in_flight", **who) == 0
        duration = "zerohop_call_duration_seconds"
        assert total(families[duration], f"{duration}_count", **who) == made[0]
    recognised = families["zerohop_connections_recognised"]
    assert total(recognised, "zerohop_connections_recognised_total", protocol="http2") == 2


def test_the_dashboards_metrics_and_labels_are_there(service: Service) -> None:
    samples: dict[str, set[str]] = {}
    with urllib.request.urlopen(f"http://127.0.0.1:{service.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    documented = set(re.findall(r"^# HELP (\S+)", text, re.MULTILINE))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    expressions = re.findall(r'"(?:expr|query)": "((?:[^"\\]|\\.)*)"', DASHBOARD.read_text())
    used = 0
    for expression in expressions:
        plain = expression.replace('\\"', '"')
        for name, selector in re.findall(r"\b((?:istio|zerohop)_\w+)(\{[^}]*\})?", plain):
            used += 1
            # A family without a sample yet stands there with its help.
            assert name in samples or name in documented, name
            wanted = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\"", selector))
            for group in re.findall(r"by \(([^)]*)\)", plain):
                wanted |= {label.strip() for label in group.split(",")}
            if name in samples:
                assert wanted <= samples[name], (name, wanted - samples[name])
    assert used > 12


def flows(service: Service, *arguments: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in service.run("flows", "--json", "--last", "1000", *arguments).stdout.splitlines()
    ]


def test_flows_filters_and_fields(service: Service) -> None:
    every = flows(service)
    assert Counter(flow["method"] for flow in every) == {method: 2 * made[0] for method, made in MADE.items()}
    assert len(flows(service, "--from", "t/client")) == len(every) // 2
    assert len(flows(service, "--workload", "t/*")) == len(every)
    assert {flow["method"] for flow in flows(service, "--status", "!OK")} == {"/test.Echo/None"}
    assert len(flows(service, "--method", "/test.Echo/F*")) == 2
    assert flows(service, "--kind", "connection") == []
    (flow,) = flows(service, "--from", "t/client", "--method", "/test.Echo/Five")
    assert (
        flow.items()
        >= {
            "protocol": "grpc",
            "grpc_status": 0,
            "verdict": "ALLOW",
            "policy": None,
            "rule": None,
            "request_bytes": 6,
            "response_bytes": 30,
            "request_messages": 1,
            "response_messages": 5,
        }.items()
    )
    assert flow["destination"] == {
        "namespace": "t",
        "workload": "server",
        "principal": "cluster.local/ns/t/sa/default",
        "address": "127.0.0.1",
        "port": PORT,
    }
    assert flow["latency_us"] > 0
    assert abs(time.time() - time.mktime(time.strptime(flow["time"][:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 600


def test_flows_filters_refuse_unknown_words(service: Service) -> None:
    for option, value, said in (
        ("--status", "NOPE", "UNIMPLEMENTED"),
        ("--reason", "polcy", "Invalid value for --reason: 'polcy' is no reason; did you mean 'policy'?"),
        ("--reason", "zzz", "there are peer_unmanaged, disabled, "),
        ("--protocol", "GRPC", "Invalid value for --protocol: 'GRPC' is no protocol; did you mean 'grpc'?"),
        ("--protocol", "bogus", "there are undeclared, tcp, http, http2, grpc, tls\n"),
    ):
        refused = service.run("flows", option, value, check=False)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr
    assert flows(service, "--reason", "policy") == []
    assert len(flows(service, "--protocol", "grpc")) == len(flows(service))


@pytest.mark.parametrize("arguments", [["status"], ["flows", "--json"], ["top", "--once", "--interval", "0.1"]])
def test_an_output_that_takes_nothing(service: Service, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            service.command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            env=service.environment,
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (1, "zerohop: cannot write the output: No space left on device\n")


def test_the_access_log_has_every_call_and_is_reopened(service: Service) -> None:
    assert service.agent is not None
    time.sleep(0.3)
    lines = [json.loads(line) for line in service.access_log.read_text().splitlines()]
    assert Counter(line["method"] for line in lines) == {method: 2 * made[0] for method, made in MADE.items()}
    moved = service.access_log.rename(service.access_log.with_suffix(".old"))
    service.agent.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while not service.access_log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(moved.read_text().splitlines()) == len(lines)


def test_following_sees_calls_as_they_end_and_top_counts_them(service: Service) -> None:
    follower = subprocess.Popen(
        service.command("flows", "--follow", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=service.environment,
    )  # fmt: skip
    top = subprocess.Popen(
        service.command("top", "--once", "--interval", "4", "--json"), stdout=subprocess.PIPE, text=True,
        env=service.environment,
    )  # fmt: skip
    time.sleep(2)
    command = [sys.executable, str(CALLER), "call", str(PORT), "10"]
    assert service.exec_popen("t/client", command).wait(60) == 0
    output, _ = top.communicate(timeout=30)
    time.sleep(0.5)
    follower.send_signal(signal.SIGINT)
    followed, errors = follower.communicate(timeout=10)
    assert follower.returncode == 130
    assert "0 records lost" in errors
    assert Counter(json.loads(line)["method"] for line in followed.splitlines()) == {
        "/test.Echo/One": 10,
        "/test.Echo/Five": 1,
        "/test.Echo/None": 1,
    }
    (measured,) = [json.loads(line) for line in output.splitlines()]
    by_method = {
        each["method"]: each for each in measured["methods"] if each["source"] == "t/client" and each["calls"] > 0
    }
    assert round(by_method["/test.Echo/One"]["calls"] * 4) == 10
    assert by_method["/test.Echo/None"]["errors"] == by_method["/test.Echo/None"]["calls"] > 0
    assert 0 < by_method["/test.Echo/One"]["p50_us"] <= by_method["/test.Echo/One"]["p99_us"]


def test_what_is_overwritten_is_counted(mesh_factory: MeshFactory) -> None:
    # The other mesh still listens on its port, and gRPC's servers would share it.
    port = free_port()
    echo = {**DOCUMENTS[2], "spec": {**DOCUMENTS[2]["spec"], "ports": [{"name": "grpc", "port": port}]}}
    mesh = mesh_factory([*DOCUMENTS[:2], echo])
    with DataPath.open(mesh.instance) as path:
        reader = FlowReader(path)
        per_cpu = path.maps["flows"].entries() // len(path.maps["counters"].get(ctypes.c_uint32(0)))
        # A record is written where the response is sent: on one CPU all of them.
        pinned = ["taskset", "-c", "0", sys.executable, str(CALLER)]
        server = mesh.exec_popen("t/server", [*pinned, "serve", str(port)], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        command = [*pinned, "call", str(port), str(per_cpu + 298)]
        assert mesh.exec_popen("t/client", command).wait(120) == 0
        assert len(reader.read()) == per_cpu
        assert reader.lost == 300
        reader.close()


def test_who_looks_at_a_removed_data_path_is_told_so(mesh: Mesh) -> None:
    """Whether nothing is there any more (`flows`) or another data path by then (`top`)."""

    def launch(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            mesh.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=mesh.environment
        )

    def assert_ended(program: subprocess.Popen[str], said: str) -> None:
        _, errors = program.communicate(timeout=10)
        assert program.returncode == 1
        assert f"zerohop: the data path of instance {mesh.instance!r} was {said}\n  fix: " in errors
        assert "Traceback" not in errors

    follower, top = launch("flows", "--follow"), launch("top", "--interval", "0.1", "--json")
    try:
        assert top.stdout is not None
        assert json.loads(top.stdout.readline())["methods"] == []
        top.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while "bpf-map" not in Path(f"/proc/{follower.pid}/maps").read_text():  # it has the ring of records
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with DataPath.open(mesh.instance) as path:
            mesh.run("clean")
            mesh.agent = None
            assert_ended(follower, "removed")
            with pytest.raises(ZerohopError, match="was removed"):
                path.open_calls()
        settings = path.folder / "maps" / "settings"
        settings.parent.mkdir(parents=True)
        other = libbpf.hash_map("other", 4, 4, 1)
        libbpf.obj_pin(other, str(settings))
        os.close(other)
        top.send_signal(signal.SIGCONT)
        assert_ended(top, "replaced by another")
    finally:
        for program in (follower, top):
            program.kill()
            program.communicate()
