"""Whole maps in few system calls: a table of telemetry may have tens of thousands of rows."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from typing import Any, Final

from zerohop.kernel import libbpf
from zerohop.kernel.maps import Map

_BATCH_BYTES: Final = 1 << 19
_POSITION_BYTES: Final = 64  # a hash map's is 4


def walk(table: Map, key: type[Any], *, cpus: int = 1) -> Iterator[tuple[Any, memoryview]]:
    """Every key of a hash map and its value's bytes; `cpus` of them in a row, each padded to 8, for a per-CPU map.

    Scalar keys are numbers, structures and values good until the next step. Entries that come or go meanwhile may be
    there or not; no entry is there twice. bpf(2), BPF_MAP_LOOKUP_BATCH. Raises `BpfError`.
    """
    size = table.value_size if cpus == 1 else -(-table.value_size // 8) * 8 * cpus
    room = max(16, _BATCH_BYTES // size)
    position, following = (ctypes.create_string_buffer(_POSITION_BYTES) for _ in range(2))
    begun = more = True
    while more:
        keys, values = (key * room)(), ctypes.create_string_buffer(size * room)
        view = memoryview(values).cast("B")
        full = False
        while more and not full:
            count = ctypes.c_uint32(room)
            try:
                libbpf.call(
                    f"reading {table.name}", "bpf_map_lookup_batch", table.fd, None if begun else position, following,
                    keys, values, ctypes.byref(count), None,
                )  # fmt: skip
            except libbpf.BpfError as error:
                if error.errno == errno.ENOSPC:  # a bucket of the hash has more entries than there is room for
                    full, room = True, 2 * room
                    continue
                if error.errno != errno.ENOENT:
                    raise
                more = False
            for index in range(count.value):
                yield keys[index], view[index * size : (index + 1) * size]
            begun = False
            position, following = following, position
