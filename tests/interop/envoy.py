"""Envoy in the foreground, with a configuration of its own and every file that it writes in a test's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interop.stage import located

Fields = Mapping[str, Any]
Made = dict[str, Any]

EXTENSIONS = "envoy.extensions"


def _typed(kind: str, **fields: Any) -> Made:
    return {"@type": f"type.googleapis.com/{EXTENSIONS}.{kind}", **fields}


def _filter(name: str, kind: str, **fields: Any) -> Made:
    return {"name": f"envoy.{name}", "typed_config": _typed(f"{name}.v3.{kind}", **fields)}


def tcp_proxy(cluster: str) -> Made:
    return _filter("filters.network.tcp_proxy", "TcpProxy", stat_prefix="all", cluster=cluster)


def http_proxy(routes: Sequence[Fields], log: Path, log_format: Fields, **more: Any) -> Made:
    """It adds no header to what passes, nor to the answers. `log`: gets an object of JSON for each request."""
    to_file = _filter("access_loggers.file", "FileAccessLog", path=str(log), log_format={"json_format": log_format})
    all_hosts = {"name": "all", "domains": ["*"], "routes": routes}
    return _filter(
        "filters.network.http_connection_manager",
        "HttpConnectionManager",
        stat_prefix="all",
        access_log=[to_file],
        http_filters=[_filter("filters.http.router", "Router", suppress_envoy_headers=True)],
        generate_request_id=False,
        route_config={"request_headers_to_remove": ["x-forwarded-proto"], "virtual_hosts": [all_hosts]},
        **more,
    )


def listener(address: str, port: int, proxy: Fields) -> Made:
    return {"name": "all", **_address(address, port), "filter_chains": [{"filters": [proxy]}]}


def cluster(name: str, address: str, port: int, **more: Any) -> Made:
    endpoints = [{"lb_endpoints": [{"endpoint": _address(address, port)}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **more,
    }


def http2_cluster(name: str, address: str, port: int, common: Fields, http2: Fields) -> Made:
    kind = "upstreams.http.v3.HttpProtocolOptions"
    explicit = {"http2_protocol_options": http2}
    options = _typed(kind, common_http_protocol_options=common, explicit_http_config=explicit)
    return cluster(name, address, port, typed_extension_protocol_options={f"{EXTENSIONS}.{kind}": options})


def _address(address: str, port: int) -> Made:
    return {"address": {"socket_address": {"address": address, "port_value": port}}}


def configure(folder: Path, in_: Fields, out: Sequence[Fields], flags: Fields | None = None) -> list[str]:
    """Writes a configuration, a listener and clusters: the command that runs it. `flags`: of features."""
    layer = {
        "name": "flags",
        "static_layer": {f"envoy.reloadable_features.{key}": on for key, on in (flags or {}).items()},
    }
    path = folder / "envoy.json"
    path.write_text(
        json.dumps({"layered_runtime": {"layers": [layer]}, "static_resources": {"listeners": [in_], "clusters": out}})
    )
    # Hot restart would be by shared memory that other Envoys of the machine have, too.
    return [located("envoy"), "-c", str(path), "--concurrency", "2", "--disable-hot-restart", "-l", "warning"]
