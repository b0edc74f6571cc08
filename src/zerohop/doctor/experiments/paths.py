"""Where the short-cut works: address families, namespaces, address translation, equal addresses."""

from __future__ import annotations

import os
import socket

from zerohop.doctor.checks import Unknown
from zerohop.doctor.scene import Pair, Scene

_MESSAGES = 100


def _converse(pair: Pair, messages: int = _MESSAGES) -> str:
    for number in range(messages):
        pair.exchange(1 + number * 37 % 4096)
    carried = pair.require_shortcut()
    total = pair.up.sent + pair.down.sent
    return f"{carried} of {total} bytes went past TCP"


def redirect(scene: Scene) -> str:
    """Messages there and back over loopback."""
    return f"{_converse(scene.pair(scene.listen()))}, in {2 * _MESSAGES} messages"


def ipv6(scene: Scene) -> str:
    return _converse(scene.pair(scene.listen(socket.AF_INET6)))


def v4_mapped(scene: Scene) -> str:
    """A server on :: sees IPv4 clients as ::ffff:127.0.0.1; its ends have different families."""
    listener = scene.listen(socket.AF_INET6, "::", dual=True)
    client = scene.dial(("127.0.0.1", listener.getsockname()[1]))
    return _converse(Pair(scene.lab, client, scene.accept(listener)))


def four_tuple_reuse(scene: Scene) -> str:
    """Two namespaces, the same two addresses and ports in both, at the same time."""
    source, target = ("127.0.0.1", 40001), ("127.0.0.1", 50001)
    pairs = []
    for number in range(2):
        if number:
            scene.new_namespace()
        listener = scene.listen(port=target[1])
        client = scene.dial(target, source=source)
        pairs.append(Pair(scene.lab, client, scene.accept(listener), start=number * 250_000))
    for size in range(1, 2000, 40):
        for pair in pairs:
            pair.up.send_whole(size)
        for pair in reversed(pairs):
            pair.down.send_whole(size)
        for pair in pairs:
            pair.down.receive_all()
            pair.up.receive_all()
    carried = [pair.require_shortcut() for pair in pairs]
    return f"{source[0]}:{source[1]} to :{target[1]} twice; {carried[0]} and {carried[1]} bytes went past TCP, unmixed"


def veth(scene: Scene) -> str:
    """Between two network namespaces."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    near, far = "198.51.100.1", "198.51.100.2"
    with scene.elsewhere():
        there = f"/proc/{os.getpid()}/fd/{home}"
        scene.tool("ip", "link", "add", "far", "type", "veth", "peer", "name", "near", "netns", there)
        scene.tool("ip", "address", "add", f"{far}/30", "dev", "far")
        scene.tool("ip", "link", "set", "far", "up")
        listener = scene.listen(address=far)
    scene.tool("ip", "address", "add", f"{near}/30", "dev", "near")
    scene.tool("ip", "link", "set", "near", "up")
    return _converse(scene.pair(listener))


def dnat(scene: Scene) -> str:
    """As kube-proxy does it: the client dials an address that the server does not have."""
    listener = scene.listen()
    port = listener.getsockname()[1]
    rules = (
        "table ip doctor { chain out { type nat hook output priority -100; policy accept;\n"
        f"ip daddr 127.99.0.1 tcp dport 80 dnat to 127.0.0.1:{port}\n}}\n}}\n"
    )
    scene.tool("nft", "-f", "-", text=rules)
    pair = scene.pair(listener, target=("127.99.0.1", 80))
    if pair.client.getpeername() == pair.server.getsockname():
        raise Unknown("the address was not translated")
    return _converse(pair)
