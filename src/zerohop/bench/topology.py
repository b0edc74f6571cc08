"""What lies between the two programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from zerohop.bench.counters import TcpCounters
from zerohop.bench.network import Namespace, ip, new_namespace, own_namespace
from zerohop.bench.placement import Role

# From the documentation block (RFC 5737), and only ever seen inside the bench's own namespaces.
VETH_SERVER: Final = "192.0.2.1"
VETH_CLIENT: Final = "192.0.2.2"

SERVER_ADDRESSES: Final = ("127.0.0.1", VETH_SERVER)
"""Every address that a server may listen on, for the Workload of the zerohop mode."""

CLIENT_ADDRESSES: Final = ("127.0.0.1", VETH_CLIENT)
"""The client's, in the same order."""


@dataclass(frozen=True)
class Topology:
    """A network between server and client: the namespace of each, and the server's IPv4 address."""

    server: Namespace
    client: Namespace
    server_address: str

    def namespace(self, role: Role) -> Namespace:
        return self.server if role == "server" else self.client

    def tcp_counters(self) -> TcpCounters:
        """The sum over the namespaces in use."""
        if self.server is self.client:
            return self.server.counters.read()
        return self.server.counters.read() + self.client.counters.read()


@contextmanager
def _loopback() -> Iterator[Topology]:
    with own_namespace() as namespace:
        yield Topology(namespace, namespace, "127.0.0.1")


@contextmanager
def _veth() -> Iterator[Topology]:
    with new_namespace() as server, new_namespace() as client:
        with server.entered():
            ip("link", "add", "server", "type", "veth", "peer", "name", "client", "netns", client.path)
            ip("address", "add", f"{VETH_SERVER}/30", "dev", "server")
            ip("link", "set", "server", "up")
        with client.entered():
            ip("address", "add", f"{VETH_CLIENT}/30", "dev", "client")
            ip("link", "set", "client", "up")
        yield Topology(server, client, VETH_SERVER)


TOPOLOGIES: Final[dict[str, Callable[[], AbstractContextManager[Topology]]]] = {
    "loopback": _loopback,
    "veth": _veth,
}
