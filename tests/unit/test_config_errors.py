"""Each mistake is one error: its place, what is wrong, and what to write. `@@` marks the place in the text."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import yaml

from zerohop.config import ConfigError, ConfigurationError, documents, load

CART = """---
{apiVersion: zerohop.io/v1alpha1, kind: Workload, metadata: {name: cart, namespace: shop, labels: {app: cart}}}
"""
CART_SERVICE = """---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: grpc, port: 80}]}
"""


def workload(spec: str = "", metadata: str = "name: db, namespace: shop") -> str:
    return f"apiVersion: zerohop.io/v1alpha1\nkind: Workload\nmetadata: {{{metadata}}}\nspec:\n  {spec}\n"


def service(spec: str = "ports: [{port: 80}]", metadata: str = "name: db, namespace: shop") -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{{metadata}}}\nspec:\n  {spec}\n"


def piece(
    rest: str = "",
    labels: str = "{kubernetes.io/service-name: cart}",
    family: str = "IPv4",
) -> str:
    return (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: s, namespace: shop, labels: {labels}}}\n"
        f"addressType: {family}\n{rest}\n{CART}{CART_SERVICE}"
    )


def errors_of(path: Path) -> list[ConfigError]:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    return caught.value.errors


MISTAKES = {
    # what: (text, part of the message, part of the hint)
    "unknown field": (workload("@@serviceAcount: a"), "spec: unknown field 'serviceAcount'", "'serviceAccount'?"),
    "unknown field in other case": (workload("@@excludeports: [1]"), "unknown field", "'excludePorts'?"),
    "unknown field unlike any": (workload("@@zzz: a"), "unknown field 'zzz'", "known: addresses, cgroups"),
    "unknown field at the top": (workload() + "@@sepc: {}\n", "unknown field 'sepc'", "'spec'?"),
    "unknown metadata": (workload(metadata="name: a, @@nmespace: b"), "metadata: unknown field", "'namespace'?"),
    "status of a workload": (workload() + "@@status: {}\n", "unknown field 'status'", "known"),
    "duplicate key": (workload("shortcut: Auto\n  @@shortcut: Always"), "duplicate key 'shortcut'", "line 5"),
    "duplicate label": (workload(metadata="name: a, labels: {a: b, @@a: c}"), "duplicate key 'a'", "keep one"),
    "duplicate object": (CART + CART.replace("cart, n", "@@cart, n"), "a second Workload shop/cart", "a.yaml:2;"),
    "wrong kind": ("apiVersion: v1\nkind: @@Servce\n", "unknown kind 'Servce'", "did you mean 'Service'?"),
    "foreign kind": (
        "apiVersion: apps/v1\nkind: @@Deployment\n",
        "unknown kind 'Deployment'",
        "known: AuthorizationPolicy,",
    ),
    "wrong version": (CART.replace("zerohop.io/v1alpha1", "@@zerohop.io/v1"), "'zerohop.io/v1' has no", "v1alpha1"),
    "no version": ("kind: Workload\nmetadata: {name: a}\n", "apiVersion is missing", "add 'apiVersion:'"),
    "no kind": ("apiVersion: v1\nmetadata: {name: a}\n", "kind is missing", "add 'kind:'"),
    "policy": ("apiVersion: zerohop.io/v1alpha1\nkind: @@MessagePolicy\n", "not supported yet", "remove"),
    "route": ("apiVersion: gateway.networking.k8s.io/v1\nkind: @@GRPCRoute\n", "not supported yet", "remove"),
    "message policy": ("apiVersion: zerohop.io/v1alpha1\nkind: @@MessagePolicy\n", "not supported yet", "remove"),
    "not an object": ("@@- a\n", "the document must be an object, not a list", "apiVersion"),
    "a word": ("@@hello\n", "the document must be an object, not the string 'hello'", "apiVersion"),
    "no name": (workload(metadata="@@").replace("{@@}", "@@{}"), "metadata.name is missing", "under metadata"),
    "no metadata": ("@@apiVersion: zerohop.io/v1alpha1\nkind: Workload\n", "metadata is missing", "add 'metadata:'"),
    "capital name": (workload(metadata="name: @@Cart"), "'Cart' is not a DNS-1123 name", "'cart'"),
    "name with underscore": (workload(metadata="name: @@a_b"), "not a DNS-1123 name", "'a-b'"),
    "long name": (workload(metadata=f"name: @@{'a' * 128}"), "not a DNS-1123 name", "at most 127"),
    "name of a cgroup file": (workload(metadata="name: @@cgroup.procs"), "cannot name a cgroup", "'cgroup-procs'"),
    "dotted namespace": (workload(metadata="name: a, namespace: @@a.b"), "not a DNS-1123 name", "at most 63"),
    "long namespace": (workload(metadata=f"name: a, namespace: @@{'a' * 64}"), "not a DNS-1123 name", "63"),
    "name that is a number": (workload(metadata="name: @@12"), "must be a string, not the number 12", 'quote it: "12"'),
    "name that is a boolean": (workload(metadata="name: @@no"), "must be a string, not the boolean no", '"no"'),
    "label that is a date": (workload(metadata="name: a, labels: {d: @@2026-01-02}"), "the date 2026-01-02", "quote"),
    "key that is a boolean": (
        workload(metadata="name: a, labels: {@@on: b}"),
        "a key must be a string",
        'quote it: "on"',
    ),
    "key that is a list": (workload(metadata="name: a, labels: {? @@[b] : c}"), "a key must be a string", "plain name"),
    "bad label key": (workload(metadata="name: a, labels: {@@a/b/c: d}"), "'a/b' before the '/'", "example.com/app"),
    "bad label name": (workload(metadata="name: a, labels: {@@-a: d}"), "'-a' is not a valid name", "63"),
    "bad label value": (workload(metadata="name: a, labels: {a: @@b c}"), "'b c' is not a valid label value", "63"),
    "labels that are a list": (workload(metadata="name: a, labels: @@[b]"), "must be a mapping, not a list", "name:"),
    "annotation that is a number": (workload(metadata="name: a, annotations: {b: @@1}"), "must be a string", "quote"),
    "account": (workload("serviceAccount: @@A"), "spec.serviceAccount: 'A' is not a DNS-1123 name", "'a'"),
    "long account": (workload(f"serviceAccount: @@{'a' * 254}"), "not a DNS-1123 name", "253"),
    "address": (workload("addresses: [@@10.0.0.256]"), "spec.addresses[0]: '10.0.0.256' is not an IP", "127.0.0.1"),
    "address with zeros": (workload("addresses: [@@010.0.0.1]"), "is not an IP address", "127"),
    "network": (workload("addresses: [@@10.0.0.0/8]"), "is not an IP address", "without a prefix length"),
    "any address": (workload("addresses: [127.0.0.1, @@0.0.0.0]"), "stands for any address", "connect to"),
    "multicast": (workload('addresses: [@@"ff02::1"]'), "is a multicast address", "connect to"),
    "mapped address": (workload('addresses: [@@"::ffff:10.0.0.1"]'), "in IPv6 notation", "write 10.0.0.1"),
    "zone": (workload('addresses: [@@"fe80::1%eth0"]'), "carries a zone", "'fe80::1'"),
    "address twice": (workload('addresses: ["::1", @@"0::1"]'), "listed twice", "keep one"),
    "addresses in a string": (workload("addresses: @@127.0.0.1"), "must be a list, not the string", "[a, b]"),
    "root cgroup": (workload("cgroups: [@@/]"), "the root of all cgroups", "one service"),
    "empty cgroup": (workload('cgroups: [@@""]'), "the root of all cgroups", "one service"),
    "reserved cgroup": (workload("cgroups: [@@//zerohop/x]"), "reserved for zerohop exec", "another"),
    "absolute cgroup": (workload("cgroups: [@@/sys/fs/cgroup/a/b]"), "not relative to the cgroup v2 mount", "'/a/b'"),
    "hybrid cgroup": (workload("cgroups: [@@/sys/fs/cgroup/unified/a]"), "not relative", "'/a'"),
    "cgroup with dots": (workload("cgroups: [@@/a/../b]"), "not a plain path", "'..'"),
    "cgroup with a line break": (workload('cgroups: [@@"/a\\nb"]'), "not a plain path", "control characters"),
    "deep cgroup": (workload(f"cgroups: [@@{'/a' * 17}]"), "17 levels deep", "at most 16"),
    "long cgroup": (workload(f"cgroups: [@@/{'ä' * 64}]"), "too long for one cgroup", "127 bytes"),
    "cgroup twice": (workload("cgroups: [/a/b, @@a//b/]"), "listed twice", "keep one"),
    "cgroup of another": (
        workload("cgroups: [/a]") + "---\n" + workload("cgroups: [@@/a/]", "name: x"),
        "/db already",
        "two",
    ),
    "unit of another": (
        workload("units: [a.slice]") + "---\n" + workload("units: [@@a.slice]", "name: x"),
        "/db already",
        "",
    ),
    "unit without type": (workload("units: [@@cart]"), "not a systemd unit name", "'cart.service'"),
    "timer": (workload("units: [@@cart.timer]"), "a timer has no processes", "'cart.service'"),
    "template": (workload("units: [@@cart@.service]"), "is a template", "'cart@1.service'"),
    "unit with a blank": (workload("units: [@@a b.service]"), "not a systemd unit name", "letters"),
    "root slice": (workload("units: [@@-.slice]"), "root of all cgroups", "one service"),
    "slice with instance": (workload("units: [@@a@b.slice]"), "no instances", "'@'"),
    "unit without a name": (workload("units: [@@.service]"), "not a systemd unit name", "write"),
    "unit without a template name": (workload('units: [@@"@a.service"]'), "not a systemd unit name", "'@'"),
    "long unit": (workload(f"units: [@@{'a' * 120}.service]"), "too long", "127"),
    "shortcut": (workload("shortcut: @@always"), "'always' is not one of", "did you mean 'Always'?"),
    "shortcut off": (workload("shortcut: @@off"), "must be a string, not the boolean off", "quote"),
    "port 0": (workload("excludePorts: [@@0]"), "spec.excludePorts[0]: 0 is out of range", "1 to 65535"),
    "port 65536": (workload("excludePorts: [@@65536]"), "65536 is out of range", "65535"),
    "negative port": (workload("excludePorts: [@@-1]"), "-1 is out of range", "65535"),
    "octal port": (workload("excludePorts: [@@0100]"), "plain decimal digits", "leading 0"),
    "sexagesimal port": (workload("excludePorts: [@@1:30]"), "plain decimal digits", "':'"),
    "port with underscore": (workload("excludePorts: [@@8_080]"), "plain decimal digits", "'_'"),
    "huge port": (workload(f"excludePorts: [@@{'9' * 5000}]"), "plain decimal digits", "decimal"),
    "quoted port": (workload('excludePorts: [@@"80"]'), "not the string '80'", "without quotes"),
    "real port": (workload("excludePorts: [@@80.0]"), "must be a number from 1 to 65535", "write a number"),
    "port twice": (workload("excludePorts: [80, @@80]"), "80 is listed twice", "keep one"),
    "spec that is a list": (workload().replace("spec:\n  ", "spec: @@[]"), "spec: must be a mapping, not a list", ""),
    "service without spec": (
        CART_SERVICE.replace("spec: {", "x: {").split("x:")[0].replace("---\n", "@@"),
        "spec is",
        "",
    ),
    "service without ports": (service("@@type: ClusterIP"), "spec.ports: at least one port", "as in"),
    "service with empty ports": (service("ports: @@[]"), "at least one port", "as in"),
    "ports that are a mapping": (service("ports: @@{port: 80}"), "spec.ports: must be a list", "[a, b]"),
    "port that is a number": (service("ports: [@@80]"), "spec.ports[0]: must be a mapping, not the number 80", ""),
    "no port": (service("ports: [@@{name: a}]"), "spec.ports[0].port is missing", "under spec.ports[0]"),
    "service port": (service("ports: [{port: @@70000}]"), "70000 is out of range", "65535"),
    "two ports, one name": (service("ports: [{port: 1, name: a}, @@{port: 2}]"), "ports[1].name is missing", "name"),
    "same port name": (service("ports: [{port: 1, name: a}, {port: 2, name: @@a}]"), "a second port 'a'", "line 5"),
    "same port number": (service("ports: [{port: 1, name: a}, {port: @@1, name: b}]"), "TCP port 1 is there", "one"),
    "port name": (service("ports: [{port: 1, name: @@gRPC}]"), "'gRPC' is not a DNS-1123 name", "'grpc'"),
    "transport": (service("ports: [{port: 1, protocol: @@tcp}]"), "'tcp' is not one of", "'TCP'?"),
    "protocol of layer 7": (service("ports: [{port: 1, protocol: @@GRPC}]"), "'GRPC' is not one of", "SCTP, TCP, UDP"),
    "appProtocol": (service("ports: [{port: 1, appProtocol: @@a b}]"), "'a b' is not a valid name", "letters"),
    "misspelt appProtocol": (service("ports: [{port: 1, @@approtocol: grpc}]"), "unknown field", "'appProtocol'?"),
    "target": (service("ports: [{port: 1, targetPort: @@0}]"), "targetPort: 0 is out of range", "65535"),
    "quoted target": (service('ports: [{port: 1, targetPort: @@"80"}]'), "neither a port number nor", "number"),
    "target without number": (
        service("ports: [{port: 1, targetPort: @@web}]"),
        "which number the port 'web'",
        "listens",
    ),
    "cluster address": (service("clusterIP: @@10.0.0\n  ports: [{port: 1}]"), "spec.clusterIP: '10.0.0' is not", ""),
    "cluster addresses": (service("clusterIPs: [@@None, 10.0.0.1]\n  ports: [{port: 1}]"), "clusterIPs[0]: 'None'", ""),
    "two of a family": (service("clusterIPs: [10.0.0.1, @@10.0.0.2]\n  ports: [{port: 1}]"), "one family", "one IPv6"),
    "two that differ": (
        service("clusterIP: @@10.0.0.2\n  clusterIPs: [10.0.0.1]\n  ports: [{port: 1}]"),
        "not the first of clusterIPs",
        "equal",
    ),
    "address of another": (
        service("clusterIP: 10.0.0.1\n  ports: [{port: 1}]")
        + "---\n"
        + service("clusterIP: @@10.0.0.1\n  ports: [{port: 1}]", "name: x"),
        "belongs to Service shop/db already",
        "one of the two",
    ),
    "external name": (service("externalName: @@a.b\n  ports: [{port: 1}]"), "spec.externalName: is not supported", ""),
    "external type": (service("type: @@ExternalName\n  ports: [{port: 1}]"), "ExternalName is not", "remove"),
    "type": (service("type: @@Cluster\n  ports: [{port: 1}]"), "'Cluster' is not one of", "'ClusterIP'?"),
    "external addresses": (
        service("externalIPs: @@[192.0.2.1]\n  ports: [{port: 1}]"),
        "externalIPs: is not",
        "clusterIPs",
    ),
    "source ranges": (service("loadBalancerSourceRanges: @@[10.0.0.0/8]\n  ports: [{port: 1}]"), "not enforced", ""),
    "affinity": (service("sessionAffinity: @@ClientIP\n  ports: [{port: 1}]"), "ClientIP is not supported", "None"),
    "affinity set-up": (service("sessionAffinityConfig: @@{a: b}\n  ports: [{port: 1}]"), "is not supported", "remove"),
    "local traffic": (service("internalTrafficPolicy: @@Local\n  ports: [{port: 1}]"), "Local is not", "Cluster"),
    "not ready": (service("publishNotReadyAddresses: @@true\n  ports: [{port: 1}]"), "true is not supported", "false"),
    "boolean of YAML 1.1": (service("publishNotReadyAddresses: @@no\n  ports: [{port: 1}]"), "must be true or", "true"),
    "boolean in quotes": (
        service('publishNotReadyAddresses: @@"false"\n  ports: [{port: 1}]'),
        "must be true",
        "quotes",
    ),
    "selector value": (
        service("selector: @@{app: crat}\n  ports: [{port: 1}]") + CART,
        "app=crat",
        "did you mean 'cart'",
    ),
    "selector key": (service("selector: @@{apps: cart}\n  ports: [{port: 1}]") + CART, "apps=cart", "the label 'app'?"),
    "selector key unlike any": (
        service("selector: @@{zz: cart}\n  ports: [{port: 1}]") + CART,
        "zz=cart",
        "a label 'zz'",
    ),
    "selector of two workloads": (
        service("selector: @@{app: cart, a: b}\n  ports: [{port: 1}]")
        + CART
        + "---\n"
        + workload(metadata="name: x, namespace: shop, labels: {a: b}"),
        "app=cart, a=b",
        "no Workload carries all of them",
    ),
    "selector in another namespace": (
        service("selector: @@{app: cart}\n  ports: [{port: 1}]", "name: x, namespace: shp") + CART,
        "no Workload in namespace shp",
        "such a Workload is in namespace 'shop'",
    ),
    "slice without service": (piece(labels="@@{a: b}"), "kubernetes.io/service-name is missing", "Service's name"),
    "slice of no service": (piece(labels="{kubernetes.io/service-name: @@crat}"), "no Service shop/crat", "'cart'?"),
    "slice of another port": (piece("ports: [{name: @@gprc, port: 1}]"), "has no port 'gprc'", "'grpc'?"),
    "slice of an unnamed port": (piece("ports: [@@{port: 1}]"), "has no port ''", "known: grpc"),
    "slice port": (piece("ports: [{name: grpc, port: @@0}]"), "0 is out of range", "65535"),
    "slice of all ports": (piece("ports: [@@{name: grpc}]"), "ports[0].port is missing", "ports[0]"),
    "slice port twice": (piece("ports: [{name: grpc, port: 1}, {name: @@grpc, port: 2}]"), "a second port 'grpc'", ""),
    "slice of another family": (piece('endpoints: [{addresses: [@@"::1"]}]'), "not IPv4", "its own addressType"),
    "slice of names": (piece("endpoints: [{addresses: [a.b]}]", family="@@FQDN"), "FQDN is not supported", "IPv4"),
    "slice of no family": (
        piece().replace("addressType: IPv4", "").replace("api", "@@api", 1),
        "addressType is",
        "add",
    ),
    "slice of a bad address": (piece("endpoints: [{addresses: [@@a.b]}]"), "'a.b' is not an IP address", "127"),
    "endpoint without address": (piece("endpoints: [{addresses: @@[]}]"), "at least one address", "as in"),
    "endpoint condition": (
        piece("endpoints: [{addresses: [10.0.0.1], conditions: {ready: @@1}}]"),
        "true or false",
        "",
    ),
    "endpoint field": (piece("endpoints: [{addresses: [10.0.0.1], @@weight: 1}]"), "unknown field 'weight'", "known"),
    "alias": (workload("serviceAccount: &a b\n  shortcut: @@*a"), "alias *a is not supported", "write the value out"),
    "merge key": (workload("@@<<: {shortcut: Auto}"), "merge key '<<' is not supported", "write the fields out"),
    "tag": (workload("serviceAccount: @@!secret a"), "tag '!secret' is not supported", "leave the tag out"),
    "tag of a list": (workload("addresses: @@!!set []"), "tag", "leave"),
    "half a character": (workload('serviceAccount: "\\ud800"'), "", ""),
    "tab": ("apiVersion: v1\nkind: Service\nspec:\n@@\tports: []\n", "not valid YAML", "spaces, not tabs"),
    "open bracket": ("a: [\n@@", "not valid YAML: while parsing a flow", "indentation"),
    "unprintable": ("apiVersion: v1\nkind: a@@\x01b\n", "unprintable character '\\x01'", "escape"),
    "line end of YAML 1.1": ("# a comment@@\u2028apiVersion: v1\n", "unprintable character '\\u2028'", "escape"),
    "lone carriage return": ("a:@@\rb\n", "unprintable character '\\r'", "escape"),
    "deep": ("[" * 64 + "@@" + "[" * 100000, "nested deeper than 64 levels", "brackets"),
    "deep by indentation": ("\n".join(" " * n + "a:" for n in range(200)), "nested deeper than 64", "brackets"),
    "list in a list": (
        "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: @@List}]",
        "a List in a List",
        "outer",
    ),
    "list item": ("apiVersion: v1\nkind: List\nitems: [@@5]", "items[0] must be an object, not the number 5", "begin"),
    "list field": ("apiVersion: v1\nkind: List\n@@item: []", "unknown field 'item'", "'items'?"),
}


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers that PyYAML may have."""
    monkeypatch.setattr(documents, "LOADER", yaml.CSafeLoader if request.param == "libyaml" else yaml.SafeLoader)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(tmp_path: Path, name: str) -> None:
    text, message, hint = MISTAKES[name]
    path = tmp_path / "a.yaml"
    marked = re.search("@@", text)
    path.write_text(text.replace("@@", "", 1))
    errors = errors_of(path)
    assert len(errors) == 1, [str(each) for each in errors]
    (error,) = errors
    assert message in error.message
    assert hint in (error.hint or "")
    assert error.file == str(path)
    assert error.hint
    if marked:
        before = text[: marked.start()]
        assert (error.line, error.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))


def test_bytes_that_are_not_utf8_have_a_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("ä: b\nöa".encode() + b"\xff\xfe")
    (error,) = errors_of(tmp_path)
    assert (error.line, error.column, error.message) == (2, 3, "byte 0xff is not UTF-8")


def test_all_errors_of_all_files_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(workload("shortcut: x\n  units: [a]\n  bad: 1") + "---\na: [\n")
    (tmp_path / "a.yaml").write_text("[")
    (tmp_path / "c.yml").write_bytes(b"\xff")
    (tmp_path / "d.yml").write_text(
        service("selector: {app: nothing}\n  ports: [{port: 0}]") + "---\n" + workload("bad: 1")
    )
    errors = errors_of(tmp_path)
    assert [(Path(each.file).name, each.line) for each in errors] == [
        ("a.yaml", 1),
        ("b.yaml", 5),
        ("b.yaml", 6),
        ("b.yaml", 7),
        ("b.yaml", 10),
        ("c.yml", 1),
        ("d.yml", 6),
        ("d.yml", 10),  # the name is in b.yaml already
        ("d.yml", 12),
    ]


def test_a_dangling_reference_and_an_error_elsewhere_are_both_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        service("selector: {app: crat}\n  ports: [{port: 1}]") + CART + "---\n" + workload("bad: 1")
    )
    assert [each.line for each in errors_of(tmp_path)] == [5, 14]


@pytest.mark.parametrize(
    "lost",
    ["[", "kind: Wrkload\napiVersion: a", workload(metadata="name: A"), workload(metadata="name: a, labels: {a: 1}")],
)
def test_a_reference_that_dangles_for_want_of_a_broken_object_is_not_reported(tmp_path: Path, lost: str) -> None:
    (tmp_path / "a.yaml").write_text(service("selector: {app: cart}\n  ports: [{port: 1}]"))
    (tmp_path / "b.yaml").write_text(lost)
    assert {Path(each.file).name for each in errors_of(tmp_path)} == {"b.yaml"}


def test_an_alias_bomb_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    started = time.monotonic()
    errors = errors_of(tmp_path)
    assert time.monotonic() - started < 5
    assert sum("alias" in each.message for each in errors) == 39 * 9


def test_services_that_contradict_each_other_are_named_once(tmp_path: Path) -> None:
    ports = "selector: {app: cart}\n  ports: [{name: NAME, port: 80, targetPort: 7000}]"
    (tmp_path / "a.yaml").write_text(
        CART
        + CART.replace("name: cart", "name: cart-2")
        + "---\n"
        + service(ports.replace("NAME", "grpc"), "name: a, namespace: shop")
        + "---\n"
        + service(ports.replace("NAME", "tls"), "name: b, namespace: shop")
    )
    (error,) = errors_of(tmp_path)
    assert error.line == 18
    assert error.message == "port 7000 of Workload shop/cart is tls here and grpc in Service shop/a"
    assert error.hint is not None
    assert error.hint.endswith("a.yaml:11")


def test_the_exception_says_everything(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(workload("shortcut: always"))
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    where = f"{tmp_path}/a.yaml:5:13: spec.shortcut: 'always' is not one of its values"
    assert str(caught.value) == f"the configuration has 1 error\n  {where}\n    fix: did you mean 'Always'?"
    assert caught.value.exit_code == 1
    assert caught.value.objects == 1
    assert str(caught.value.errors[0]) == f"{where} (did you mean 'Always'?)"


def test_what_is_normal_is_no_error(tmp_path: Path) -> None:
    """Nested cgroups, a Service without selector, one whose endpoints only a slice knows."""
    (tmp_path / "a.yaml").write_text(
        "\n---\n".join(
            [
                workload("cgroups: [/a]"),
                workload("cgroups: [/a/b]", "name: x, namespace: shop"),
                service("ports: [{port: 80}]"),
                service("selector: {app: far}\n  ports: [{port: 80, targetPort: web}]", "name: far, namespace: shop"),
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv6\n"
                "metadata: {name: far, namespace: shop, labels: {kubernetes.io/service-name: far}}\n"
                'ports: [{port: 8080}]\nendpoints: [{addresses: ["fd00::1"]}]\n',
            ]
        )
    )
    configuration = load(tmp_path)
    assert (len(configuration.workloads), len(configuration.services)) == (2, 2)
