"""A member may not turn to kernel TLS, which would stand still there; a socket that has left may.

Programs ask for it after their handshake (nginx, OpenSSL with SSL_OP_ENABLE_KTLS). Not every machine's kernel has kTLS,
so this is tried where the emulated ones do.
"""

from __future__ import annotations

import random
import socket
import struct

import sockets
import traffic

from zerohop.kernel import cgroup, lifecycle
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.status import read_status

TCP_ULP, SOL_TLS, TLS_TX, TLS_RX = 31, 282, 1, 2
TLS_1_2, AES_GCM_128 = 0x0303, 51
MESSAGES = 100


def check(instance: str) -> dict[str, object]:
    """`problems` is empty when all went well; `skipped` says why nothing could be tried."""
    source = random.Random(traffic.SEED)
    client, server = sockets.pair()
    try:
        _turn_to_tls(client, server)
    except OSError as error:
        return {"skipped": f"no kTLS here: {error.strerror}", "problems": []}
    problems = _converse(client, server, source, "TLS without zerohop")
    path, _ = lifecycle.obtain(instance)
    with path:
        traffic.manage(path, instance)
        client, server = sockets.pair(
            cgroup.exec_path(instance, traffic.NAMESPACE, traffic.CLIENT),
            cgroup.exec_path(instance, traffic.NAMESPACE, traffic.SERVER),
        )
        problems += _converse(client, server, source, "before TLS")
        before = _shortcut_bytes(path)
        if not before:
            problems.append("nothing was short-cut before TLS")
        problems += _refusals(client, server)
        problems += _converse(client, server, source, "after a refusal")
    _, staying = lifecycle.remove(instance)
    _turn_to_tls(client, server)
    problems += _converse(client, server, source, "with TLS, after clean")
    client.close()
    server.close()
    return {"shortcut_bytes": before, "stayed": staying, "problems": problems}


def _refusals(*ends: socket.socket) -> list[str]:
    """A member is told what a kernel without kTLS says."""
    problems = []
    for end in ends:
        try:
            end.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
            problems.append("a member may turn to kTLS")
        except FileNotFoundError:
            continue
    return problems


def _turn_to_tls(client: socket.socket, server: socket.socket) -> None:
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    for end, send_key, receive_key in ((client, 1, 2), (server, 2, 1)):
        end.setsockopt(SOL_TLS, TLS_TX, _keys(send_key))
        end.setsockopt(SOL_TLS, TLS_RX, _keys(receive_key))


def _keys(number: int) -> bytes:
    """struct tls12_crypto_info_aes_gcm_128: version, cipher, iv, key, salt, record sequence."""
    fill = bytes([number])
    return struct.pack("HH8s16s4s8s", TLS_1_2, AES_GCM_128, fill * 8, fill * 16, fill * 4, bytes(8))


def _converse(client: socket.socket, server: socket.socket, source: random.Random, when: str) -> list[str]:
    for number in range(MESSAGES):
        for sender, receiver in ((client, server), (server, client)):
            message = source.randbytes(source.choice((1, 100, 1000, 9000)))
            sender.send(message)
            received = sockets.receive(receiver, len(message))
            if received != message:
                return [f"{when}, message {number}: {len(received)} of {len(message)} bytes, or other ones"]
    return []


def _shortcut_bytes(path: DataPath) -> int:
    return read_status(path).totals.shortcut_bytes
