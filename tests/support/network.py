"""Network namespaces for tests: a lone one, two with a veth between, a server that is reached through DNAT."""

from __future__ import annotations

import contextlib
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


def sh(*command: str, text: str | None = None) -> str:
    """Runs a tool; its complaint is the error's."""
    result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {result.stderr.strip() or result.returncode}")
    return result.stdout


@dataclass(frozen=True)
class Namespace:
    """A network namespace with its loopback up."""

    name: str

    def ip(self, *arguments: str) -> str:
        return sh("ip", "-n", self.name, *arguments)

    def run(self, *command: str, text: str | None = None) -> str:
        return sh("ip", "netns", "exec", self.name, *command, text=text)

    def tcp_counters(self) -> dict[str, int]:
        """`nstat`'s TCP counters, absolute: TcpRetransSegs, TcpExtTCPTimeouts, TcpExtTCPRcvPruned and the like."""
        lines = self.run("cat", "/proc/net/netstat", "/proc/net/snmp").splitlines()
        found = {}
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            prefix, *keys = names.split()
            for key, value in zip(keys, values.split()[1:], strict=True):
                found[prefix.rstrip(":") + key] = int(value)
        return found


@contextlib.contextmanager
def namespace(role: str = "n") -> Iterator[Namespace]:
    """A fresh namespace, named zh<random><role>; its processes must have ended when the block does."""
    space = Namespace(f"zh{uuid.uuid4().hex[:6]}{role}")
    sh("ip", "netns", "add", space.name)
    try:
        space.ip("link", "set", "lo", "up")
        yield space
    finally:
        sh("ip", "netns", "del", space.name)


@dataclass(frozen=True)
class Pair:
    """Client and server namespace, and where the client finds the server."""

    client: Namespace
    server: Namespace
    ipv4: str
    ipv6: str


def link(left: Namespace, right: Namespace, subnet: int) -> None:
    """A veth between two namespaces: 10.77.SUBNET.1 and fd77:SUBNET::1 on the left, .2 and ::2 on the right."""
    device = f"zh{subnet}"
    left.ip("link", "add", device, "type", "veth", "peer", "name", device, "netns", right.name)
    for space, host in ((left, 1), (right, 2)):
        space.ip("address", "add", f"10.77.{subnet}.{host}/24", "dev", device)
        space.ip("address", "add", f"fd77:{subnet}::{host}/64", "dev", device, "nodad")
        space.ip("link", "set", device, "up")


@contextlib.contextmanager
def veth_pair() -> Iterator[Pair]:
    with namespace("c") as client, namespace("s") as server:
        link(client, server, 1)
        yield Pair(client, server, "10.77.1.2", "fd77:1::2")


DnatFactory = Callable[..., Pair]

VIRTUAL_IPV4 = "198.51.100.10"
VIRTUAL_IPV6 = "2001:db8:77::10"
VIRTUAL_PORT = 8080

_RULES = """
table inet zerohop_test {
  chain services {
    ip daddr %(v4)s tcp dport %(port)d dnat ip to %(server4)s:%(target)d
    ip6 daddr %(v6)s tcp dport %(port)d dnat ip6 to [%(server6)s]:%(target)d
  }
  chain prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain output { type nat hook output priority -100; jump services; }
  chain postrouting { type nat hook postrouting priority srcnat; oifname "lo" accept; }
}
"""


def install_dnat(space: Namespace, server4: str, server6: str, target: int) -> None:
    """The virtual addresses lead to the server, for passing and for local traffic, as kube-proxy does."""
    rules = _RULES % {
        "v4": VIRTUAL_IPV4,
        "v6": VIRTUAL_IPV6,
        "port": VIRTUAL_PORT,
        "server4": server4,
        "server6": server6,
        "target": target,
    }
    sh("ip", "netns", "exec", space.name, "nft", "-f", "-", text=rules)


@contextlib.contextmanager
def dnat_pair(target: int, *, through_node: bool) -> Iterator[Pair]:
    """The server is reached by virtual addresses only.

    Through a node: client - node - server, translated where packets enter the node. Else client - server, translated
    where the client's packets leave (the client is on the node itself).
    """
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(namespace("c"))
        server = stack.enter_context(namespace("s"))
        if through_node:
            node = stack.enter_context(namespace("n"))
            link(client, node, 1)
            link(node, server, 2)
            node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            for space, gateway in ((client, "1::2"), (server, "2::1")):
                subnet, host = re.fullmatch(r"(\d)::(\d)", gateway).groups()  # type: ignore[union-attr]
                space.ip("route", "add", "default", "via", f"10.77.{subnet}.{host}")
                space.ip("-6", "route", "add", "default", "via", f"fd77:{gateway}")
            install_dnat(node, "10.77.2.2", "fd77:2::2", target)
        else:
            link(client, server, 1)
            client.ip("route", "add", "default", "via", "10.77.1.2")
            client.ip("-6", "route", "add", "default", "via", "fd77:1::2")
            install_dnat(client, "10.77.1.2", "fd77:1::2", target)
        yield Pair(client, server, VIRTUAL_IPV4, VIRTUAL_IPV6)


def names() -> set[str]:
    """Every named namespace of this machine."""
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.exists() else set()
