"""The access log: a line for each flow record, in JSON or in Envoy's default text format."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TextIO

from zerohop.errors import ZerohopError
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.telemetry import FlowReader, Names
from zerohop.telemetry.flows import Flow, flow_of, is_known

_FLAGS = {"complete": "-", "client_reset": "DR", "server_reset": "UR", "closed": "UC", "unread": "NFCF"}


def as_json(flow: Flow) -> str:
    return json.dumps(flow.as_json(), separators=(",", ":"))


def as_envoy(flow: Flow) -> str:
    """Envoy's default format string; what nobody keeps (headers but the path, the upstream's time) is `-`.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
    """
    start = flow.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    call = flow.kind == "call"
    grpc = flow.protocol == "grpc"
    request = f"{'POST' if call and grpc else '-'} {flow.method or '-'} {'HTTP/2' if call else '-'}"
    duration = "-" if flow.latency_us is None else str(flow.latency_us // 1000)
    upstream = f"[{flow.destination.address}]" if ":" in flow.destination.address else flow.destination.address
    return (
        f'[{start}] "{request}" {flow.http_status or 0} {_FLAGS[flow.ending]} {flow.request_bytes} '
        f'{flow.response_bytes} {duration} - "-" "-" "-" "{flow.service or "-"}" "{upstream}:{flow.destination.port}"'
    )


class AccessLog:
    """Follows the flow records into a file. `lost`: records that were overwritten before they were read."""

    def __init__(self, path: DataPath, target: str, style: str) -> None:
        """`target`: a file that is appended to, or `-`. `style`: json or envoy. Raises `ZerohopError`."""
        self._path = path
        self._target = target
        self._line: Callable[[Flow], str] = as_json if style == "json" else as_envoy
        self._names = Names(path)
        self._reader = FlowReader(path)
        self._file: TextIO
        self.reopen()

    @property
    def lost(self) -> int:
        return self._reader.lost

    def reopen(self) -> None:
        """After the file was moved away: goes on in a new one of its name."""
        if self._target == "-":
            self._file = sys.stdout
            return
        try:
            opened = open(self._target, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise ZerohopError(
                f"cannot write the access log {self._target}: {error.strerror}", hint="name another with --access-log"
            ) from error
        previous = getattr(self, "_file", None)
        self._file = opened
        if previous is not None:
            previous.close()

    def write(self) -> None:
        """Writes what has come since the last time."""
        records: list[Any] = self._reader.read()
        if not records:
            return
        if not all(is_known(each, self._names) for each in records):
            self._names = Names(self._path)
        self._file.writelines(f"{self._line(flow_of(each, self._names))}\n" for each in records)
        self._file.flush()

    def close(self) -> None:
        self._reader.close()
        if self._target != "-":
            self._file.close()
