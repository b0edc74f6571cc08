"""Properties: no text makes `load` fail in any other way than with errors; what is valid reads as it was written."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zerohop.compiler import compile_tables
from zerohop.config import Configuration, ConfigurationError, documents, load
from zerohop.config.names import dns_label, dns_subdomain, label_key, label_value

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load_bytes(content: bytes) -> Configuration | None:
    """The configuration, or None where it has errors, each of which has a place in the file and can be printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_bytes(content)
        try:
            return load(path)
        except ConfigurationError as error:
            caught = error
    lines = content.decode("utf-8", "replace").split("\n")
    assert caught.errors
    for each in caught.errors:
        assert each.file == str(path)
        assert 1 <= each.line <= len(lines)
        assert 1 <= each.column <= len(lines[each.line - 1]) + 1
        assert "\n" not in each.message
        assert each.hint
        str(each).encode()
    return None


WORDS = """
    apiVersion kind metadata spec name namespace labels List items Workload Service EndpointSlice ports port selector
    targetPort cgroups units shortcut addresses excludePorts clusterIP clusterIPs endpoints addressType conditions
    zerohop.io/v1alpha1 v1 discovery.k8s.io/v1 cart shop no ~ 0x1F 010 1:30 .inf 2026-01-01 << = None Auto IPv4 !!str
    !x &a *a * | > - ? : , [ ] { } ' " # --- ... %YAML @ `
"""
words = st.sampled_from(WORDS.split())
glue = st.sampled_from([" ", "\n", "\n  ", ": ", "\n- ", ", ", "\t", "", "\r\n", "\u2028", "\x85"])
yamlish = st.lists(st.tuples(words, glue), max_size=60).map(lambda parts: "".join(a + b for a, b in parts))


@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
@FEW
@given(text=yamlish)
def test_junk_of_yaml_words(parser: str, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LOADER", getattr(yaml, parser))
        load_bytes(text.encode())


@FEW
@given(st.binary(max_size=200))
def test_junk_of_bytes(content: bytes) -> None:
    load_bytes(content)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["cart", "shop", "a.b", "10.0.0.1", "::1", "/a/b", "a.service", "TCP", "IPv4", "None", "80"])
)
FIELDS = """
    name namespace labels annotations serviceAccount addresses cgroups units shortcut excludePorts clusterIP clusterIPs
    selector ports port targetPort protocol appProtocol type conditions endpoints addressType ready
    kubernetes.io/service-name items kind apiVersion metadata spec status
"""
fields = st.sampled_from(FIELDS.split())
trees: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(fields, inner, max_size=5), max_leaves=30
)


@FEW
@given(
    kind=st.sampled_from(
        [
            ("zerohop.io/v1alpha1", "Workload"),
            ("v1", "Service"),
            ("discovery.k8s.io/v1", "EndpointSlice"),
            ("v1", "List"),
        ]
    ),
    metadata=st.dictionaries(fields, trees, max_size=4) | trees,
    spec=st.dictionaries(fields, trees, max_size=6) | trees,
    rest=st.dictionaries(fields, trees, max_size=4),
)
def test_objects_with_anything_in_their_fields(kind: tuple[str, str], metadata: Any, spec: Any, rest: Any) -> None:
    document = {**rest, "apiVersion": kind[0], "kind": kind[1], "metadata": metadata, "spec": spec}
    configuration = load_bytes(json.dumps(document).encode())
    if configuration is not None:
        compile_tables(configuration)


def passing(strategy: st.SearchStrategy[str], check: Any) -> st.SearchStrategy[str]:
    return strategy.filter(lambda value: check(value) is None)


label = passing(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True), dns_label)
subdomain = st.lists(label, min_size=1, max_size=3).map(lambda parts: "-x.".join(parts))
port = st.integers(1, 65535)
v4 = st.ip_addresses(v=4).filter(lambda ip: not (ip.is_multicast or ip.is_unspecified)).map(str)
pairs = st.dictionaries(
    passing(st.from_regex(r"([a-z]{1,9}\.io/)?[A-Za-z]([\w.-]{0,20}\w)?", fullmatch=True), label_key),
    passing(st.from_regex(r"([A-Za-z0-9]([\w.-]{0,20}[a-z])?)?", fullmatch=True), label_value),
    max_size=3,
)
cgroup = st.lists(st.from_regex(r"[a-z][\w@:é-]{0,20}", fullmatch=True), min_size=1, max_size=16).map(
    lambda parts: "/x" + "/".join(parts)
)
workloads = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({"name": label, "namespace": label, "labels": pairs}),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "serviceAccount": subdomain,
                "addresses": st.lists(v4, unique=True, min_size=1, max_size=3),
                "cgroups": st.lists(cgroup, unique=True, max_size=3),
                "shortcut": st.sampled_from(["Auto", "Always", "Disabled"]),
                "excludePorts": st.lists(port, unique=True, max_size=4),
            },
        ),
    }
)


@FEW
@given(
    written=st.lists(
        workloads, min_size=1, max_size=5, unique_by=lambda w: (w["metadata"]["name"], w["metadata"]["namespace"])
    ),
    style=st.sampled_from([True, False, None]),
    ports=st.lists(st.tuples(label, port, port), min_size=1, max_size=4, unique_by=(lambda p: p[0], lambda p: p[1])),
)
def test_what_is_valid_reads_as_it_was_written(
    written: list[dict[str, Any]], style: bool | None, ports: list[tuple[str, int, int]]
) -> None:
    seen: set[str] = set()
    for each in written:
        each["spec"]["cgroups"] = [path for path in each["spec"].get("cgroups", []) if path not in seen]
        seen.update(each["spec"]["cgroups"])
    # Names like grpc-a and tcp-b for one target would contradict each other: the protocol is given, and one.
    entries = [{"name": n, "port": p, "targetPort": t, "appProtocol": "grpc"} for n, p, t in ports]
    metadata = {"name": "svc", "namespace": written[0]["metadata"]["namespace"]}
    selector = written[0]["metadata"]["labels"]
    texts = [{"apiVersion": "zerohop.io/v1alpha1", "kind": "Workload", **each} for each in written] + [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": selector, "ports": entries}}
    ]
    configuration = load_bytes(yaml.safe_dump_all(texts, default_flow_style=style, allow_unicode=True).encode())
    assert configuration is not None
    for each, read in zip(written, configuration.workloads, strict=True):
        spec = each["spec"]
        assert (read.namespace, read.name) == (each["metadata"]["namespace"], each["metadata"]["name"])
        assert read.labels == each["metadata"]["labels"]
        assert read.service_account == spec.get("serviceAccount", "default")
        assert list(read.addresses) == spec.get("addresses", ["127.0.0.1", "::1"])
        assert list(read.cgroups) == spec["cgroups"]
        assert read.shortcut == spec.get("shortcut", "Auto")
        assert list(read.exclude_ports) == spec.get("excludePorts", [])
    (service,) = configuration.services
    assert service.selector == selector
    assert [(p.name, p.port, p.target_port, p.app_protocol) for p in service.ports] == [(*p, "grpc") for p in ports]
    tables = compile_tables(configuration)
    selected = {
        read.key
        for read in configuration.workloads
        if selector and read.namespace == service.namespace and selector.items() <= read.labels.items()
    }
    assert set(tables.ports) == {(key, target) for key in selected for _, _, target in ports}
    assert set(tables.cgroups) == seen


@FEW
@given(st.text(max_size=300))
def test_names_never_pass_with_bytes_that_the_tables_cannot_hold(value: str) -> None:
    if dns_label(value) is None:
        assert len(value.encode()) <= 63
    if dns_subdomain(value) is None:
        assert len(value.encode()) <= 253
