"""Address blocks to classes: which of them an address lies in, as one number, found by its longest prefix."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

# Of addresses that are in no block.
NOWHERE: Final = 0

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


class Blocks:
    """`prefixes`: (length, 16 bytes) to class, IPv4 as v4-mapped. `by_block`: block to its addresses' classes."""

    def __init__(self, blocks: Iterable[str]) -> None:
        networks = {block: _network(block) for block in sorted(set(blocks))}
        own: dict[ipaddress.IPv6Network, list[str]] = {}
        for block, network in networks.items():
            own.setdefault(network, []).append(block)
        numbers: dict[frozenset[str], int] = {frozenset(): NOWHERE}
        holding: dict[ipaddress.IPv6Network, frozenset[str]] = {}
        # An IPv6 block never holds an IPv4 address, whatever way it is written.
        if any(network.prefixlen < _MAPPED.prefixlen and _MAPPED.subnet_of(network) for network in own):
            own.setdefault(_MAPPED, [])
        lengths = sorted({network.prefixlen for network in own})
        self.prefixes: dict[tuple[int, bytes], int] = {}
        holders: dict[str, list[int]] = {block: [] for block in networks}
        for network in sorted(own, key=lambda each: each.prefixlen):
            inherited: frozenset[str] = frozenset()
            if network != _MAPPED:
                for length in reversed([each for each in lengths if each < network.prefixlen]):
                    above = holding.get(network.supernet(new_prefix=length))
                    if above is not None:
                        inherited = above
                        break
            blocks_here = holding[network] = inherited | frozenset(own[network])
            known = blocks_here in numbers
            number = numbers.setdefault(blocks_here, len(numbers))
            self.prefixes[network.prefixlen, network.network_address.packed] = number
            if not known:
                for block in blocks_here:
                    holders[block].append(number)
        self.by_block = {block: frozenset(found) for block, found in holders.items()}


def _network(block: str) -> ipaddress.IPv6Network:
    network = ipaddress.ip_network(block)
    if isinstance(network, ipaddress.IPv6Network):
        return network
    mapped = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + network.network_address.packed)
    return ipaddress.IPv6Network((mapped, _MAPPED.prefixlen + network.prefixlen))
