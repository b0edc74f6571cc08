"""What a valid configuration reads as, and which files make it up."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from zerohop.config import ConfigurationError, Endpoint, EndpointPort, Shortcut, Transport, digest, load

SHOP = """\
apiVersion: zerohop.io/v1alpha1
kind: Workload
metadata: {name: cart, namespace: shop, labels: {app: cart, version: v1}}
spec:
  serviceAccount: cart-robot
  addresses: [127.0.0.1, "0:0::1"]
  cgroups: [/system.slice//cart/, other/cart]
  units: [cart.service, "cart@1.service"]
  shortcut: Always
  excludePorts: [5432, 6379]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {team: a}}
spec:
  clusterIPs: [240.0.0.10, "fd00::10"]
  selector: {app: cart}
  ports:
    - {name: grpc, port: 80, targetPort: 50051, appProtocol: kubernetes.io/h2c}
    - {name: dns, port: 53, protocol: UDP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: grpc, port: 50051, appProtocol: grpc}]
endpoints:
  - {addresses: [10.0.0.7, 10.0.0.8]}
  - {addresses: [10.0.0.9], conditions: {ready: false, serving: true, terminating: false}}
"""

WORKLOAD = """\
apiVersion: zerohop.io/v1alpha1
kind: Workload
metadata: {name: NAME}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_every_field_arrives(tmp_path: Path) -> None:
    configuration = load(write(tmp_path, shop=SHOP))
    (workload,) = configuration.workloads
    assert (workload.namespace, workload.name, workload.key) == ("shop", "cart", "shop/cart")
    assert workload.labels == {"app": "cart", "version": "v1"}
    assert workload.service_account == "cart-robot"
    assert workload.addresses == ("127.0.0.1", "::1")
    assert workload.cgroups == ("/system.slice/cart", "/other/cart")
    assert workload.units == ("cart.service", "cart@1.service")
    assert workload.shortcut is Shortcut.ALWAYS
    assert workload.exclude_ports == (5432, 6379)
    assert (workload.source.file, workload.source.line) == (str(tmp_path / "shop.yaml"), 1)
    (service,) = configuration.services
    assert (service.key, service.labels, service.selector) == ("shop/cart", {"team": "a"}, {"app": "cart"})
    assert service.cluster_ips == ("240.0.0.10", "fd00::10")
    assert [(p.name, p.port, p.target_port, p.transport, p.app_protocol) for p in service.ports] == [
        ("grpc", 80, 50051, Transport.TCP, "kubernetes.io/h2c"),
        ("dns", 53, 53, Transport.UDP, None),
    ]
    assert (service.source.line, service.ports[1].source.line) == (12, 20)
    (piece,) = configuration.endpoint_slices
    assert (piece.namespace, piece.name, piece.service) == ("shop", "cart-1", "cart")
    assert piece.ports == (EndpointPort("grpc", 50051, Transport.TCP, "grpc"),)
    assert piece.endpoints == (Endpoint(("10.0.0.7", "10.0.0.8"), True), Endpoint(("10.0.0.9",), False))


def test_a_workload_needs_no_more_than_a_name(tmp_path: Path) -> None:
    (workload,) = load(write(tmp_path, w=WORKLOAD.replace("NAME", "cart"))).workloads
    assert workload.namespace == "default"
    assert workload.service_account == "default"
    assert workload.addresses == ("127.0.0.1", "::1")
    assert workload.shortcut is Shortcut.AUTO
    assert (workload.labels, workload.cgroups, workload.units, workload.exclude_ports) == ({}, (), (), ())


def test_null_is_absent(tmp_path: Path) -> None:
    text = (
        WORKLOAD.replace("NAME", "cart, namespace: null, labels: ~")
        + "spec: {shortcut: null, addresses: , cgroups: []}\n"
    )
    (workload,) = load(write(tmp_path, w=text)).workloads
    assert (workload.namespace, workload.labels, workload.shortcut) == ("default", {}, Shortcut.AUTO)


KUBECTL = """\
apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"v1"}
    creationTimestamp: "2026-01-05T10:00:00Z"
    finalizers: [service.kubernetes.io/load-balancer-cleanup]
    generation: 3
    managedFields:
    - apiVersion: v1
      fieldsType: FieldsV1
      fieldsV1:
        f:spec:
          f:ports:
            .: {}
            k:{"port":80,"protocol":"TCP"}: {.: {}, f:port: {}}
      manager: kubectl
    name: web
    namespace: shop
    ownerReferences: [{kind: App, name: web}]
    resourceVersion: "4711"
    selfLink: /api/v1/x
    uid: 0c0ffee0-0000-4000-8000-000000000000
  spec:
    allocateLoadBalancerNodePorts: true
    clusterIP: 10.96.0.10
    clusterIPs: [10.96.0.10]
    externalTrafficPolicy: Cluster
    healthCheckNodePort: 30001
    internalTrafficPolicy: Cluster
    ipFamilies: [IPv4]
    ipFamilyPolicy: SingleStack
    loadBalancerClass: example.com/lb
    loadBalancerIP: 192.0.2.1
    ports:
    - {name: http-web, nodePort: 30080, port: 80, protocol: TCP, targetPort: web}
    publishNotReadyAddresses: false
    selector: {app: web}
    sessionAffinity: None
    trafficDistribution: PreferClose
    type: LoadBalancer
  status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}
- addressType: IPv4
  apiVersion: discovery.k8s.io/v1
  endpoints:
  - addresses: [10.244.0.7]
    conditions: {ready: true, serving: true, terminating: false}
    deprecatedTopology: {a: b}
    hints: {forZones: [{name: a}]}
    hostname: web-0
    nodeName: node-1
    targetRef: {kind: Pod, name: web-0, namespace: shop, uid: 1}
    zone: a
  kind: EndpointSlice
  metadata:
    creationTimestamp: null
    generateName: web-
    labels:
      endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
      kubernetes.io/service-name: web
    name: web-abc12
    namespace: shop
  ports:
  - {name: http-web, port: 8080, protocol: TCP}
kind: List
metadata: {resourceVersion: ""}
"""


def test_what_kubectl_prints_is_accepted(tmp_path: Path) -> None:
    configuration = load(write(tmp_path, all=KUBECTL))
    assert configuration.services[0].cluster_ips == ("10.96.0.10",)
    assert configuration.services[0].ports[0].target_port == "web"
    assert configuration.services[0].source.line == 3
    assert configuration.endpoint_slices[0].service == "web"


@pytest.mark.parametrize(
    "spec", ["clusterIP: None, clusterIPs: [None]", "clusterIP: None", "clusterIP: None, ports: []"]
)
def test_a_headless_service(tmp_path: Path, spec: str) -> None:
    text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\nspec: {{{spec}}}\n"
    assert load(write(tmp_path, s=text)).services[0].cluster_ips == ()


def test_a_directory_is_read_in_the_order_of_names_and_only_its_yaml(tmp_path: Path) -> None:
    write(
        tmp_path,
        b=WORKLOAD.replace("NAME", "b"),
        a=WORKLOAD.replace("NAME", "a1") + "---\n" + WORKLOAD.replace("NAME", "a2"),
    )
    (tmp_path / "c.yml").write_text(WORKLOAD.replace("NAME", "c"))
    (tmp_path / "d.yaml.bak").write_text("no: yaml: at: all")
    (tmp_path / ".e.yaml").write_text("[")
    os.symlink("user@host.1234", tmp_path / ".#a.yaml")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f.yaml").write_text("[")
    assert [each.name for each in load(tmp_path).workloads] == ["a1", "a2", "b", "c"]


def test_a_file_may_have_any_name_empty_documents_json_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "shop.conf"
    json = '{"apiVersion": "zerohop.io/v1alpha1", "kind": "Workload", "metadata": {"name": "a"}}'
    path.write_text(f"\ufeff---\r\n---\n# nothing\n---\n{json}\n...\n")
    assert load(path).workloads[0].name == "a"


def test_the_digest_follows_names_and_contents(tmp_path: Path) -> None:
    first = WORKLOAD.replace("NAME", "a")
    write(tmp_path, a=first)
    before = load(tmp_path).digest
    assert before == load(tmp_path).digest == digest(tmp_path)
    write(tmp_path, a=first + "\n")
    changed = load(tmp_path).digest
    assert changed != before
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    assert load(tmp_path).digest not in (before, changed)


def test_digest_never_raises(tmp_path: Path) -> None:
    assert len(digest(tmp_path / "missing")) == 64
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    assert digest(tmp_path) != digest(tmp_path / "missing")


@pytest.mark.parametrize("content", [b"", b"# only a comment\n", b"---\n---\n", b"\xef\xbb\xbf"])
def test_a_file_without_objects_is_an_error(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, good=WORKLOAD.replace("NAME", "a"))
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    assert [(Path(e.file).name, e.line, e.message) for e in caught.value.errors] == [
        ("x.yaml", 1, "no objects in the file")
    ]


def one_error(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (error,) = caught.value.errors
    assert error.line == 1
    assert error.hint
    return error.message


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert "No such file" in one_error(tmp_path / "missing")
    assert "no *.yaml or *.yml" in one_error(tmp_path)
    assert "null byte" in one_error(Path("a\0b"))
    os.mkfifo(tmp_path / "a.yaml")
    assert one_error(tmp_path) == "not a regular file"
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "a.yaml").mkdir()
    assert one_error(tmp_path) == "not a regular file"
    (tmp_path / "a.yaml").rmdir()
    os.symlink("nowhere", tmp_path / "a.yaml")
    assert "No such file" in one_error(tmp_path)
    assert one_error(Path("/dev/zero")) == "not a regular file"


def test_a_huge_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    assert one_error(path) == "larger than 32 MiB"


def test_a_file_without_permission(tmp_path: Path) -> None:
    write(tmp_path, a=WORKLOAD)
    (tmp_path / "a.yaml").chmod(stat.S_IWUSR)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        assert "Permission denied" in one_error(tmp_path / "a.yaml")
    finally:
        os.seteuid(user)


def test_nothing_stays_open(tmp_path: Path) -> None:
    write(tmp_path, a=WORKLOAD.replace("NAME", "a"))
    before = len(os.listdir("/proc/self/fd"))
    load(tmp_path)
    for path in (Path("/dev/null"), tmp_path / "missing", tmp_path / "a.yaml" / "b"):
        with pytest.raises(ConfigurationError):
            load(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    example = page.split("```yaml\n", 1)[1].split("```", 1)[0]
    configuration = load(write(tmp_path, example=example))
    assert configuration.workloads[0].units == ("cart.service",)
    assert configuration.services[0].ports[0].target_port == 50051
