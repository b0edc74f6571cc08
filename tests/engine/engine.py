"""The engine as a test drives it: natively, or in the kernel. Both have `shim`, a `struct shim`, and `call`."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from zerohop.kernel import libbpf
from zerohop.kernel.btf import Layouts

FUNCTIONS = (
    "engine_client",
    "engine_server",
    "engine_block",
    "engine_field",
    "engine_remember",
    "engine_message",
    "engine_lead",
    "engine_step",
    "engine_data",
    "engine_stream",
    "engine_rewrite",
    "engine_neutralise",
)


class Constants:
    """The engine's numbers, as the harness's types name them."""

    def __init__(self, layouts: Layouts) -> None:
        self.shim = layouts.struct("shim")
        self.event = layouts.enum("http2_event")
        self.form = layouts.enum("hpack_form")
        self.name = layouts.enum("hpack_name")
        self.rewriting = layouts.enum("rewriting")
        self.reason = layouts.enum("reason")

    @classmethod
    def of_object(cls, harness: Path) -> Constants:
        layouts = Layouts.of_object(harness)
        try:
            return cls(layouts)
        finally:
            layouts.close()


class Engine(Protocol):
    constants: Constants
    shim: Any

    def call(self, function: str) -> int:
        """Runs one of FUNCTIONS on the state and the shim."""

    def reset(self) -> None:
        """Makes the state zeros."""


def put_bytes(shim: Any, data: bytes) -> None:
    """Writes a header block or a message where the engine reads it."""
    assert len(data) <= len(shim.bytes)
    ctypes.memmove(ctypes.addressof(shim) + type(shim).bytes.offset, data, len(data))
    shim.size = len(data)


def get_bytes(shim: Any, field: str, count: int) -> bytes:
    """The first bytes of one of the shim's arrays: `count`, or all if it has fewer."""
    place = getattr(type(shim), field)
    return ctypes.string_at(ctypes.addressof(shim) + place.offset, min(count, place.size))


class Native:
    """The sanitized native build."""

    def __init__(self, library: Path, constants: Constants) -> None:
        self.constants = constants
        self._library = ctypes.CDLL(str(library))
        self.shim = constants.shim()
        size = ctypes.c_uint32.in_dll(self._library, "engine_shim_size").value
        assert ctypes.sizeof(self.shim) == size, "the native build and the harness differ"
        self._state = ctypes.create_string_buffer(ctypes.c_uint32.in_dll(self._library, "engine_state_size").value)
        self._functions = {name: getattr(self._library, name) for name in FUNCTIONS}
        self._arguments = (ctypes.byref(self._state), ctypes.byref(self.shim))

    def call(self, function: str) -> int:
        result: int = self._functions[function](*self._arguments)
        return result

    def reset(self) -> None:
        ctypes.memset(self._state, 0, len(self._state))


class Kernel:
    """The harness, loaded. `verified`: instructions that the verifier walked, per program."""

    def __init__(self, harness: Path) -> None:
        self.constants = Constants.of_object(harness)
        self._closing = contextlib.ExitStack()
        lib = libbpf.library()
        libbpf.messages.clear()
        handle = libbpf.pointer(f"opening {harness}", "bpf_object__open_file", str(harness).encode(), None)
        self._closing.callback(lib.bpf_object__close, handle)
        libbpf.call("loading the harness", "bpf_object__load", handle)
        self._programs: dict[str, int] = {}
        for name in FUNCTIONS:
            program = libbpf.pointer(name, "bpf_object__find_program_by_name", handle, name.encode())
            self._programs[name] = lib.bpf_program__fd(program)
        self.verified = {name: libbpf.program_info(fd).verified_insns for name, fd in self._programs.items()}
        self._state = self._mapped(handle, "states")
        self.shim = self.constants.shim.from_buffer(self._mapped(handle, "shims"))
        self._zeros = bytes(len(self._state))

    def _mapped(self, handle: ctypes.c_void_p, name: str) -> mmap.mmap:
        table = libbpf.pointer(name, "bpf_object__find_map_by_name", handle, name.encode())
        fd = libbpf.library().bpf_map__fd(table)
        size = libbpf.map_info(fd).value_size
        return mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)

    def call(self, function: str) -> int:
        return libbpf.test_run(self._programs[function])

    def reset(self) -> None:
        self._state[:] = self._zeros

    def close(self) -> None:
        self._closing.close()


@contextlib.contextmanager
def kernel(harness: Path) -> Iterator[Kernel]:
    engine = Kernel(harness)
    try:
        yield engine
    finally:
        engine.close()
