"""What an `h2` peer writes: in pieces of a given size, and if wanted in the strangest form that is allowed."""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from pathlib import Path
from typing import Final

import h2.config
import h2.connection
import h2.settings

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from engine.http2_frames import rewritten

SECONDS: Final = 30.0
TABLE_SIZES: Final = (0, 500, 4_096, 65_536)


def connected(host: str, port: int, *, blocking: bool) -> socket.socket:
    """`blocking`: connects as a program does that blocks, which is all that the kernel can know of it then."""
    sock = socket.socket()
    sock.setblocking(blocking)
    sock.connect_ex((host, port))
    select.select([], [sock], [], SECONDS)
    return sock


class Wire:
    """One end of a connection. `piece`: bytes of a write, 0: as they come. `strange`: padding, frames cut at random,
    frames between that mean nothing. Otherwise a client's frames are only short: C-core refuses padding."""

    def __init__(self, sock: socket.socket, chance: random.Random, piece: int, *, client: bool, strange: bool) -> None:
        self.chance = chance
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding="utf-8", validate_inbound_headers=False)
        )
        size = chance.choice(TABLE_SIZES)
        table = {h2.settings.SettingCodes.HEADER_TABLE_SIZE: size}
        self.connection.local_settings = h2.settings.Settings(client=client, initial_values=table)
        # As an acknowledgement of the settings would, had they been another value before.
        self.connection.decoder.max_allowed_table_size = size
        self.connection.initiate_connection()
        self._socket = sock
        self._piece = piece
        self._client = client
        self._strange = strange
        self._deadline = time.monotonic() + SECONDS
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send()

    def send(self) -> None:
        data = self.connection.data_to_send()
        if self._strange:
            data = rewritten(self.chance, data)
        while data:
            try:
                data = data[self._socket.send(data[: self._piece or len(data)]) :]
            except BlockingIOError:
                self._wait(writing=True)

    def receive(self) -> list[h2.events.Event]:
        """What comes next; nothing: the peer has closed."""
        events: list[h2.events.Event] = []
        while not events:
            self._wait(writing=False)
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                break  # it had not read everything
            if not data:
                break
            events = self.connection.receive_data(data)
            if self._client and not self._strange:
                # The peer's settings allow more; header blocks get CONTINUATIONs by this.
                self.connection.max_outbound_frame_size = 1_000
        return events

    def close(self) -> None:
        self._socket.close()

    def _wait(self, *, writing: bool) -> None:
        left = max(0.0, self._deadline - time.monotonic())
        if not any(select.select([self._socket], [self._socket] if writing else [], [], left)):
            raise SystemExit("nothing comes")
