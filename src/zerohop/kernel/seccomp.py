"""A seccomp filter that answers splice(2) with EINVAL: programs then copy, which the short-cut serves.

`splice` from a sockmap member does not see redirected bytes and would wait for ever. The filter stays across execve
and in children (seccomp(2)); the kernel caches its constant answers, so other system calls cost the same.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Final

from zerohop.errors import UnsupportedError, ZerohopError

# Machine: (AUDIT_ARCH_*, number of seccomp(2), number of splice(2)).
_MACHINES: Final = {"x86_64": (0xC000003E, 317, 275), "aarch64": (0xC00000B7, 277, 76)}

_SET_MODE_FILTER: Final = 1
_RET_ALLOW: Final = 0x7FFF0000
_RET_ERRNO: Final = 0x00050000
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_OFFSET_NUMBER: Final = 0
_OFFSET_MACHINE: Final = 4


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_splice() -> None:
    """Installs the filter in this process; needs CAP_SYS_ADMIN. Raises `ZerohopError`."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise UnsupportedError(
            f"splice(2) cannot be refused on {machine}",
            hint="start the program with --allow-splice if it never splices",
        )
    architecture, seccomp, splice = _MACHINES[machine]
    code = [
        (_LOAD, 0, 0, _OFFSET_MACHINE),
        (_JUMP_EQUAL, 0, 2, architecture),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_EQUAL, 1, 0, splice),
        (_RETURN, 0, 0, _RET_ALLOW),
        (_RETURN, 0, 0, _RET_ERRNO | errno.EINVAL),
    ]
    program = _Program(len(code), b"".join(struct.pack("HBBI", *each) for each in code))
    if ctypes.CDLL(None, use_errno=True).syscall(seccomp, _SET_MODE_FILTER, 0, ctypes.byref(program)) != 0:
        raise ZerohopError(f"cannot refuse splice(2): {os.strerror(ctypes.get_errno())}", hint="run as root")
