"""AuthorizationPolicy documents for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def principal(workload: str) -> str:
    """Of a workload NS/NAME whose service account has its name."""
    namespace, _, name = workload.partition("/")
    return f"cluster.local/ns/{namespace}/sa/{name}"


def policy(
    name: str,
    *rules: Mapping[str, Any],
    action: str = "ALLOW",
    namespace: str = "t",
    app: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An AuthorizationPolicy, for the workloads with the label app=APP."""
    spec: dict[str, Any] = {"action": action, "rules": list(rules)}
    if app is not None:
        spec["selector"] = {"matchLabels": {"app": app}}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations or {})},
        "spec": spec,
    }


def callers(**source: Sequence[str]) -> dict[str, Any]:
    """A rule with one source."""
    return {"from": [{"source": {name: list(values) for name, values in source.items()}}]}


def service(name: str, port: int, protocol: str = "grpc", namespace: str = "t") -> dict[str, Any]:
    """A Service for the workloads with the label app=NAME, with one port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"name": "p", "port": port, "appProtocol": protocol}]},
    }
