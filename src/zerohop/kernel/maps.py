"""Typed access to BPF maps: keys and values are the `ctypes` classes that BTF gave."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zerohop.errors import ZerohopError
from zerohop.kernel import libbpf


def memory_bytes(fd: int) -> int:
    """What the kernel accounts for a map (`memlock` in its fdinfo)."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    found = re.search(r"^memlock:\s*(\d+)", info, re.MULTILINE)
    return int(found.group(1)) if found else 0


class Map:
    """One map by descriptor, which this object owns. `per_cpu` values are read as a list, one per possible CPU."""

    def __init__(self, name: str, fd: int, key: type[Any], value: type[Any], *, per_cpu: bool = False) -> None:
        info = libbpf.map_info(fd)
        if info.key_size != ctypes.sizeof(key) or not self._fits(info.value_size, ctypes.sizeof(value)):
            os.close(fd)
            raise ZerohopError(
                f"the pinned map {name} was made by another build of zerohop",
                hint="start zerohop run again: it replaces the data path",
            )
        self.name = name
        self.value_size = info.value_size
        self.fd = fd
        self._key = key
        self._value = value
        self._per_cpu = per_cpu

    def _fits(self, pinned: int, own: int) -> bool:
        return pinned == own

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def get(self, key: Any) -> Any | None:
        """The value, or None when the key is absent."""
        count = possible_cpus() if self._per_cpu else 1
        value = (self._value * count)()
        if not self._lookup(key, value):
            return None
        return list(value) if self._per_cpu else value[0]

    def _lookup(self, key: Any, value: Any) -> bool:
        try:
            libbpf.call(f"reading {self.name}", "bpf_map_lookup_elem", self.fd, ctypes.byref(key), ctypes.byref(value))
        except libbpf.BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def put(self, key: Any, value: Any) -> None:
        libbpf.call(f"writing {self.name}", "bpf_map_update_elem", self.fd, ctypes.byref(key), ctypes.byref(value), 0)

    def delete(self, key: Any) -> None:
        """Removes the key; an absent one is not an error."""
        try:
            libbpf.call(f"deleting from {self.name}", "bpf_map_delete_elem", self.fd, ctypes.byref(key))
        except libbpf.BpfError as error:
            if error.errno != errno.ENOENT:
                raise

    def keys(self) -> Iterator[Any]:
        """Every key. Keys that vanish during the walk may make it begin again: callers tolerate repeats."""
        previous: Any = None
        while True:
            key = self._key()
            argument = None if previous is None else ctypes.byref(previous)
            try:
                libbpf.call(f"walking {self.name}", "bpf_map_get_next_key", self.fd, argument, ctypes.byref(key))
            except libbpf.BpfError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            yield key
            previous = key

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Every key and value that is there when it is looked at."""
        for key in self.keys():
            value = self.get(key)
            if value is not None:
                yield key, value

    def entries(self) -> int:
        """How many the map can hold."""
        return int(libbpf.map_info(self.fd).max_entries)

    def memory_bytes(self) -> int:
        return memory_bytes(self.fd)


class GrowingMap(Map):
    """A map whose structure only ever grows at its end, so that builds can read and write each other's.

    Fields that the map's own build did not have read as zero and are not written; what lies beyond ours is kept.
    """

    def _fits(self, pinned: int, own: int) -> bool:
        return True

    def get(self, key: Any) -> Any | None:
        content = self._content(key)
        if content is None:
            return None
        return self._value.from_buffer_copy(content.ljust(ctypes.sizeof(self._value), b"\0"))

    def put(self, key: Any, value: Any) -> None:
        """Not atomic where the map has more fields than `value`."""
        known = bytes(value)[: self.value_size]
        beyond = (self._content(key) or bytes(self.value_size))[len(known) :]
        super().put(key, ctypes.create_string_buffer(known + beyond, self.value_size))

    def _content(self, key: Any) -> bytes | None:
        content = ctypes.create_string_buffer(self.value_size)
        return content.raw if self._lookup(key, content) else None


def possible_cpus() -> int:
    """How many values a per-CPU map holds for a key."""
    return libbpf.call("counting CPUs", "libbpf_num_possible_cpus")
