"""Which protocol a Service's port speaks: `appProtocol`, else the port's name, as Istio reads them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Protocol(IntEnum):
    """Append-only: the numbers are `enum protocol` of bpf/shared/types.h. TLS is opaque: https, tls and the like."""

    TCP = 1
    HTTP = 2
    HTTP2 = 3
    GRPC = 4
    TLS = 5


# gRPC-Web and WebSocket travel in HTTP/1.1 as well as in HTTP/2.
_BY_WORD: Final = {
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.HTTP,
    "http": Protocol.HTTP,
    "http_proxy": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "h2c": Protocol.HTTP2,
    "https": Protocol.TLS,
    "tls": Protocol.TLS,
    "hbone": Protocol.TLS,
    "tcp": Protocol.TCP,
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
}

_BY_APP_PROTOCOL: Final = {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.TLS,
}


def declared_protocol(app_protocol: str | None, port_name: str) -> Protocol | None:
    """The protocol that a port declares, None if it declares none (it is plain TCP then).

    An `appProtocol` that is not known hides the name, since whoever wrote it meant something else than the name says.
    """
    if app_protocol is None:
        return _by_prefix(port_name)
    return _BY_APP_PROTOCOL.get(app_protocol.lower()) or _by_prefix(app_protocol)


def _by_prefix(word: str) -> Protocol | None:
    lowered = word.lower()
    if lowered == "grpc-web" or lowered.startswith("grpc-web-"):
        return _BY_WORD["grpc-web"]
    return _BY_WORD.get(lowered.split("-", 1)[0])
