"""A seccomp filter that answers two calls with EINVAL: programs then copy, which the short-cut serves.

`splice` from a sockmap member does not see redirected bytes and would wait for ever. The filter stays across execve
and in children (seccomp(2)); the kernel caches its constant answers, so other system calls cost the same.

`getsockopt(TCP_ZEROCOPY_RECEIVE)` on a member makes Linux dereference a null pointer (`tcp_zerocopy_receive` expects
the data that `tcp_inq` counts in the socket's own queue), so it is refused too, always.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from typing import Final

from zerohop.errors import UnsupportedError, ZerohopError

# Machine: (AUDIT_ARCH_*, numbers of seccomp(2), splice(2) and getsockopt(2)).
_MACHINES: Final = {"x86_64": (0xC000003E, 317, 275, 55), "aarch64": (0xC00000B7, 277, 76, 209)}
_TCP_ZEROCOPY_RECEIVE: Final = 35

_SET_MODE_FILTER: Final = 1
_RET_ALLOW: Final = 0x7FFF0000
_RET_ERRNO: Final = 0x00050000
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_OFFSET_NUMBER: Final = 0
_OFFSET_MACHINE: Final = 4
_OFFSET_LEVEL: Final = 16 + 8  # the low half of args[1] on little-endian machines
_OFFSET_OPTION: Final = 16 + 16


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_unserved(*, splice: bool) -> None:
    """Installs the filter in this process; needs CAP_SYS_ADMIN. `splice`: refuse that too. Raises `ZerohopError`."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise UnsupportedError(
            f"system calls cannot be refused on {machine}", hint="bind the workload by cgroup or unit instead"
        )
    architecture, seccomp, splice_number, getsockopt = _MACHINES[machine]
    code = [
        (_LOAD, 0, 0, _OFFSET_MACHINE),
        (_JUMP_EQUAL, 0, 7, architecture),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_EQUAL, 6 if splice else 5, 0, splice_number),
        (_JUMP_EQUAL, 0, 4, getsockopt),
        (_LOAD, 0, 0, _OFFSET_LEVEL),
        (_JUMP_EQUAL, 0, 2, socket.IPPROTO_TCP),
        (_LOAD, 0, 0, _OFFSET_OPTION),
        (_JUMP_EQUAL, 1, 0, _TCP_ZEROCOPY_RECEIVE),
        (_RETURN, 0, 0, _RET_ALLOW),
        (_RETURN, 0, 0, _RET_ERRNO | errno.EINVAL),
    ]
    program = _Program(len(code), b"".join(struct.pack("HBBI", *each) for each in code))
    if ctypes.CDLL(None, use_errno=True).syscall(seccomp, _SET_MODE_FILTER, 0, ctypes.byref(program)) != 0:
        raise ZerohopError(f"cannot install the filter: {os.strerror(ctypes.get_errno())}", hint="run as root")
