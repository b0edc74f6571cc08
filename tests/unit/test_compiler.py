"""Tables from objects; and that numbers and limits are those of the kernel's headers."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from zerohop.compiler import Protocol, Tables, WorkloadEntry, compile_tables
from zerohop.config import ConfigurationError, load, names, references
from zerohop.config.protocol import declared_protocol

SHARED = Path(__file__).parents[2] / "bpf" / "shared"

WORKLOADS = """\
{apiVersion: zerohop.io/v1alpha1, kind: Workload, metadata: {name: cart, namespace: shop, labels: {app: cart, v: "1"}},
 spec: {cgroups: [/a, b//c/], units: [cart.service], excludePorts: [5432]}}
---
{apiVersion: zerohop.io/v1alpha1, kind: Workload,
 metadata: {name: cart-2, namespace: shop, labels: {app: cart, v: "2"}},
 spec: {shortcut: Disabled, serviceAccount: cart}}
---
{apiVersion: zerohop.io/v1alpha1, kind: Workload, metadata: {name: cart, namespace: other, labels: {app: cart}},
 spec: {shortcut: Always}}
"""


def tables(folder: Path, *documents: str) -> Tables:
    path = folder / "a.yaml"
    path.write_text("\n---\n".join(documents))
    return compile_tables(load(path))


def service(name: str, selector: str, ports: str) -> str:
    return (
        f"{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}},"
        f" spec: {{selector: {selector}, ports: {ports}}}}}"
    )


def test_workloads_cgroups_units_and_exclusions(tmp_path: Path) -> None:
    assert tables(tmp_path, WORKLOADS) == Tables(
        workloads={
            "shop/cart": WorkloadEntry("shop", "cart", "default", 1),
            "shop/cart-2": WorkloadEntry("shop", "cart-2", "cart", 0),
            "other/cart": WorkloadEntry("other", "cart", "default", 2),
        },
        cgroups={"/a": "shop/cart", "/b/c": "shop/cart"},
        units={"cart.service": "shop/cart"},
        ports={},
        excluded=frozenset({("shop/cart", 5432)}),
    )


def test_ports_are_those_on_which_the_selected_workloads_listen(tmp_path: Path) -> None:
    compiled = tables(
        tmp_path,
        WORKLOADS,
        service(
            "all", "{app: cart}", "[{name: grpc, port: 80, targetPort: 50051}, {name: dns, port: 53, protocol: UDP}]"
        ),
        service("two", '{app: cart, v: "2"}', "[{port: 8080, appProtocol: http}]"),
    )
    assert compiled.ports == {
        ("shop/cart", 50051): Protocol.GRPC,
        ("shop/cart-2", 50051): Protocol.GRPC,
        ("shop/cart-2", 8080): Protocol.HTTP,
    }


@pytest.mark.parametrize("selector", ["{}", "null"])
def test_a_service_without_selector_selects_nothing(tmp_path: Path, selector: str) -> None:
    assert tables(tmp_path, WORKLOADS, service("all", selector, "[{name: grpc, port: 80}]")).ports == {}


@pytest.mark.parametrize("order", [1, -1])
def test_a_declared_protocol_wins_over_none(tmp_path: Path, order: int) -> None:
    both = [service("a", "{app: cart}", "[{port: 80}]"), service("b", '{v: "1"}', "[{name: http2, port: 80}]")]
    compiled = tables(tmp_path, WORKLOADS, *both[::order])
    assert compiled.ports == {("shop/cart", 80): Protocol.HTTP2, ("shop/cart-2", 80): Protocol.TCP}


def test_a_named_target_has_the_numbers_of_the_endpoint_slices(tmp_path: Path) -> None:
    def piece(name: str, number: int) -> str:
        return (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,"
            f" ports: [{{name: grpc, port: {number}}}, {{name: other, port: 9}}],"
            f" metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: a}}}}}}"
        )

    compiled = tables(
        tmp_path,
        WORKLOADS,
        service("a", '{v: "1"}', "[{name: grpc, port: 80, targetPort: web}, {name: other, port: 81, protocol: UDP}]"),
        piece("one", 7001),
        piece("two", 7002),
    )
    assert compiled.ports == {("shop/cart", 7001): Protocol.GRPC, ("shop/cart", 7002): Protocol.GRPC}


@pytest.mark.parametrize(
    ("app_protocol", "name", "expected"),
    [
        ("grpc", "", Protocol.GRPC),
        ("GRPC", "tcp", Protocol.GRPC),
        ("http", "grpc", Protocol.HTTP),
        ("http2", "", Protocol.HTTP2),
        ("https", "", Protocol.TLS),
        ("tls", "", Protocol.TLS),
        ("tcp", "http", Protocol.TCP),
        ("kubernetes.io/h2c", "", Protocol.HTTP2),
        ("kubernetes.io/ws", "", Protocol.HTTP),
        ("kubernetes.io/wss", "", Protocol.TLS),
        ("example.com/own", "http", None),
        ("ftp", "grpc", None),
        (None, "grpc", Protocol.GRPC),
        (None, "grpc-api", Protocol.GRPC),
        (None, "grpc-web", Protocol.HTTP),
        (None, "grpc-web-1", Protocol.HTTP),
        (None, "grpc-webber", Protocol.GRPC),
        (None, "http-web", Protocol.HTTP),
        (None, "http2-web", Protocol.HTTP2),
        (None, "https-web", Protocol.TLS),
        (None, "tls-x", Protocol.TLS),
        (None, "tcp-x", Protocol.TCP),
        (None, "mongo", Protocol.TCP),
        (None, "redis-1", Protocol.TCP),
        (None, "mysql", Protocol.TCP),
        (None, "grpcish", None),
        (None, "web", None),
        (None, "", None),
    ],
)
def test_protocol(app_protocol: str | None, name: str, expected: Protocol | None) -> None:
    assert declared_protocol(app_protocol, name) is expected


def endpoints(name: str, of: str, ports: str, addresses: str, family: str = "IPv4") -> str:
    return (
        f"{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {family}, ports: {ports},"
        f" endpoints: [{{addresses: {addresses}}}],"
        f" metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {of}}}}}}}"
    )


def mapped(address: str) -> bytes:
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def test_the_first_service_that_declares_a_port_names_it(tmp_path: Path) -> None:
    compiled = tables(
        tmp_path,
        WORKLOADS,
        service("unused", "{}", "[{name: grpc, port: 80}]"),
        service("first", "{app: cart}", "[{port: 80}]"),
        service("second", '{v: "2"}', "[{name: grpc, port: 80}, {name: http, port: 81}]"),
    )
    assert compiled.services == ("shop/first", "shop/second")
    assert compiled.port_services == {
        ("shop/cart", 80): "shop/first",
        ("shop/cart-2", 80): "shop/first",
        ("shop/cart-2", 81): "shop/second",
    }
    assert compiled.ports["shop/cart-2", 80] is Protocol.GRPC


def test_plain_addresses_of_services(tmp_path: Path) -> None:
    compiled = tables(
        tmp_path,
        WORKLOADS,
        service("bank", "{}", "[{name: grpc, port: 80}, {name: dns, port: 53, protocol: UDP}, {name: x, port: 81}]"),
        service("later", "{}", "[{name: http, port: 80}]"),
        endpoints("one", "bank", "[{name: grpc, port: 7001}, {name: x, port: 7002}]", "[10.0.0.7, 10.0.0.8]"),
        endpoints("six", "bank", "[{name: x, port: 7003, appProtocol: http2}]", '["2001:db8::1"]', "IPv6"),
        endpoints("again", "later", "[{name: http, port: 7001}]", "[10.0.0.7]"),
        endpoints("dns", "bank", "[{name: dns, port: 53, protocol: UDP}]", "[10.0.0.9]"),
    )
    assert compiled.endpoints == {
        (mapped("10.0.0.7"), 7001): (Protocol.GRPC, "shop/bank"),
        (mapped("10.0.0.8"), 7001): (Protocol.GRPC, "shop/bank"),
        (mapped("10.0.0.7"), 7002): (Protocol.TCP, "shop/bank"),
        (mapped("10.0.0.8"), 7002): (Protocol.TCP, "shop/bank"),
        (socket.inet_pton(socket.AF_INET6, "2001:db8::1"), 7003): (Protocol.HTTP2, "shop/bank"),
    }
    assert compiled.services == ("shop/bank",)


def test_where_a_workload_listens_is_no_plain_address(tmp_path: Path) -> None:
    """`shop/cart` has the default addresses, 127.0.0.1 and ::1, and the port 7001 of its Service."""
    compiled = tables(
        tmp_path,
        WORKLOADS,
        service("a", '{v: "1"}', "[{name: grpc, port: 80, targetPort: 7001}]"),
        endpoints("one", "a", "[{name: grpc, port: 7001}]", "[127.0.0.1, 127.0.0.2]"),
        endpoints("two", "a", "[{name: grpc, port: 7002}]", "[127.0.0.1]"),
    )
    assert set(compiled.endpoints) == {(mapped("127.0.0.2"), 7001), (mapped("127.0.0.1"), 7002)}


def constants(header: str, pattern: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(pattern, (SHARED / header).read_text())}


def virtual(ips: str, ports: str = "[{name: grpc, port: 80, targetPort: 50051}]") -> str:
    return (
        "{apiVersion: v1, kind: Service, metadata: {name: all, namespace: shop},"
        f" spec: {{clusterIPs: {ips}, selector: {{app: cart}}, ports: {ports}}}}}"
    )


def packed(address: str) -> bytes:
    mapped = f"::ffff:{address}" if "." in address else address
    return socket.inet_pton(socket.AF_INET6, mapped)


def test_virtual_addresses_have_the_endpoints_of_their_family(tmp_path: Path) -> None:
    heavy = """{apiVersion: zerohop.io/v1alpha1, kind: Workload,
     metadata: {name: heavy, namespace: shop, labels: {app: cart}}, spec: {addresses: [10.0.0.9], weight: 7}}"""
    compiled = tables(
        tmp_path,
        WORKLOADS,
        heavy,
        virtual('[240.0.0.10, "fd00::10"]'),
        # One address is the workload's, too.
        endpoints("one", "all", "[{name: grpc, port: 50051}]", "[10.0.0.9, 10.0.0.1]"),
    )
    v4, v6 = packed("240.0.0.10"), packed("fd00::10")
    assert compiled.virtuals.keys() == {(v4, 80), (v6, 80)}
    assert compiled.virtuals[v4, 80].service == "shop/all"
    assert set(compiled.virtuals[v4, 80].endpoints) == {
        (packed("127.0.0.1"), 50051, 1),
        (packed("10.0.0.9"), 50051, 7),
        (packed("10.0.0.1"), 50051, 1),
    }
    assert compiled.virtuals[v6, 80].endpoints == ((packed("::1"), 50051, 1),)
    assert compiled.services == ("shop/all",)


def test_virtual_addresses_without_endpoints_are_left_alone(tmp_path: Path) -> None:
    only_v4 = """{apiVersion: zerohop.io/v1alpha1, kind: Workload,
     metadata: {name: one, namespace: shop, labels: {app: cart}}, spec: {addresses: [10.0.0.9]}}"""
    ports = "[{name: dns, port: 53, protocol: UDP}, {name: grpc, port: 80}]"
    assert tables(tmp_path, only_v4, virtual('["fd00::10"]', ports)).virtuals == {}
    assert set(tables(tmp_path, only_v4, virtual("[240.0.0.10]", ports)).virtuals) == {(packed("240.0.0.10"), 80)}


@pytest.mark.parametrize("weight", ["0", "1001", '"2"', "1.5"])
def test_a_weight_is_a_number_from_1_to_1000(tmp_path: Path, weight: str) -> None:
    document = f"""{{apiVersion: zerohop.io/v1alpha1, kind: Workload, metadata: {{name: one, namespace: shop}},
     spec: {{weight: {weight}}}}}"""
    with pytest.raises(ConfigurationError) as caught:
        tables(tmp_path, document)
    (error,) = caught.value.errors
    assert "spec.weight" in error.message


@pytest.mark.parametrize(("limit", "value"), [("MAX_VIRTUALS", 0), ("MAX_BACKENDS", 1)])
def test_more_virtual_addresses_than_the_tables_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(references, limit, value)
    with pytest.raises(ConfigurationError) as caught:
        tables(tmp_path, WORKLOADS, virtual("[240.0.0.10]"))
    (error,) = caught.value.errors
    assert "virtual addresses" in error.message


def test_numbers_are_those_of_the_kernel() -> None:
    found = constants("types.h", r"\bPROTOCOL_(\w+) = (\d+)")
    found.pop("UNDECLARED")
    assert found == {each.name: each.value for each in Protocol}
    modes = constants("types.h", r"\bSHORTCUT_(DISABLED|AUTO|ALWAYS) = (\d+)")
    assert modes == {"DISABLED": 0, "AUTO": 1, "ALWAYS": 2}


def test_limits_are_those_of_the_kernel() -> None:
    bounds = constants("bounds.h", r"#define (\w+) (\d+)\b")
    assert bounds["MAX_WORKLOADS"] == names.MAX_WORKLOADS
    assert bounds["MAX_PORTS"] == names.MAX_PORTS
    assert bounds["MAX_SERVICES"] == names.MAX_SERVICES
    assert bounds["MAX_ENDPOINTS"] == names.MAX_ENDPOINTS
    assert bounds["MAX_VIRTUALS"] == names.MAX_VIRTUALS
    assert bounds["MAX_BACKENDS"] == names.MAX_BACKENDS
    assert bounds["MAX_CGROUP_NODES"] == names.MAX_CGROUP_NODES
    assert bounds["MAX_CGROUP_DEPTH"] == names.MAX_CGROUP_DEPTH
    assert bounds["CGROUP_NAME_SIZE"] - 1 == names.MAX_CGROUP_NAME
    assert bounds["NAMESPACE_SIZE"] > 63
    assert bounds["NAME_SIZE"] > 253


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_WORKLOADS", 2, "more than 2 Workloads"),
        ("MAX_PORTS", 2, "more than 2 ports"),
        ("MAX_SERVICES", 1, "more than 1 Services"),
        ("MAX_ENDPOINTS", 2, "more than 2 addresses and ports"),
        # /zerohop, /zerohop/default, /zerohop/default/shop, …/cart, /a, /b, /b/c, /system.slice, …/cart.service: nine
        ("MAX_CGROUP_NODES", 8, "more than 8 different parts"),
    ],
)
def test_more_than_the_tables_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str
) -> None:
    more = [
        service("all", "{app: cart}", "[{name: grpc, port: 80}]"),
        service("out", "{}", "[{name: grpc, port: 80}]"),
        endpoints("one", "out", "[{name: grpc, port: 81}]", "[10.0.0.1, 10.0.0.2, 10.0.0.3]"),
    ]
    monkeypatch.setattr(references, limit, value)
    with pytest.raises(ConfigurationError) as caught:
        tables(tmp_path, WORKLOADS, *more)
    (error,) = caught.value.errors
    assert message in error.message
    # One more is room for all.
    monkeypatch.setattr(references, limit, 9 + 4)
    tables(tmp_path, WORKLOADS, *more)
