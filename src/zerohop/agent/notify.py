"""sd_notify(3): tells the service manager how the agent is."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Sends `state` (as in `READY=1`) where NOTIFY_SOCKET points; does nothing without one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(state.encode(), address)
