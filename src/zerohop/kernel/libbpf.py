"""A thin binding of libbpf 1.1+ (Debian `libbpf1`): prototypes, and errors as exceptions.

Functions keep libbpf's names without the `bpf_` prefix where they are one system call, and return what the call
returns. Every failure raises `BpfError` with the errno and what was tried.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
from typing import Any, Final, TypeVar

from zerohop.errors import UnsupportedError, ZerohopError

BPF_MAP_TYPE_HASH: Final = 1
BPF_F_NO_PREALLOC: Final = 1
BPF_CGROUP_INET_INGRESS: Final = 0
BPF_CGROUP_SOCK_OPS: Final = 3
BPF_CGROUP_INET4_CONNECT: Final = 10
BPF_CGROUP_INET6_CONNECT: Final = 11
BPF_CGROUP_SETSOCKOPT: Final = 22
BPF_CGROUP_INET4_GETPEERNAME: Final = 29
BPF_CGROUP_INET6_GETPEERNAME: Final = 30
BPF_SK_MSG_VERDICT: Final = 7
BPF_SK_SKB_VERDICT: Final = 38

PRINT_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class BpfError(ZerohopError):
    """A failed call into the kernel or libbpf; `errno` is the positive error number."""

    def __init__(self, what: str, number: int, *, hint: str | None = None) -> None:
        super().__init__(f"{what}: {os.strerror(number)} ({errno.errorcode.get(number, number)})", hint=hint)
        self.errno = number


_vsnprintf = ctypes.CDLL(None).vsnprintf
_vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)

# The last lines libbpf said, so that a load error can quote the verifier; printed only on request.
messages: list[str] = []
# As long as a verifier's log may be: what matters is its end. Memory only where something was written.
_buffer = (ctypes.c_char * (1 << 24)).from_buffer(mmap.mmap(-1, 1 << 24))


@PRINT_CALLBACK  # type: ignore[untyped-decorator]
def _collect(level: int, fmt: bytes, arguments: int) -> int:
    _vsnprintf(_buffer, len(_buffer), fmt, arguments)
    messages.append(_buffer.value.decode(errors="replace"))
    del messages[:-64]
    return 0


Info = TypeVar("Info", bound=ctypes.Structure)


class ProgramInfo(ctypes.Structure):
    """`struct bpf_prog_info` up to `verified_insns` (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", ctypes.c_uint32),
        ("nr_jited_func_lens", ctypes.c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
        ("nr_line_info", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("jited_line_info", ctypes.c_uint64),
        ("nr_jited_line_info", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("jited_line_info_rec_size", ctypes.c_uint32),
        ("nr_prog_tags", ctypes.c_uint32),
        ("prog_tags", ctypes.c_uint64),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class MapInfo(ctypes.Structure):
    """`struct bpf_map_info` up to `btf_id`."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
    )


class CgroupLinkInfo(ctypes.Structure):
    """`struct bpf_link_info` of a cgroup link."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("cgroup_id", ctypes.c_uint64),
        ("attach_type", ctypes.c_uint32),
        ("rest", ctypes.c_uint32 * 11),
    )


class TestRunOptions(ctypes.Structure):
    """`struct bpf_test_run_opts` (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class MapOptions(ctypes.Structure):
    """`struct bpf_map_create_opts` (libbpf's bpf.h) up to `map_flags`."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )


_POINTER_RESULTS: Final = (
    "ring_buffer__new",
    "bpf_object__open_file",
    "bpf_object__find_map_by_name",
    "bpf_object__find_program_by_name",
    "bpf_object__next_map",
    "bpf_object__next_program",
    "btf__load_from_kernel_by_id",
    "btf__parse",
    "btf__type_by_id",
)
_STRING_RESULTS: Final = ("bpf_map__name", "bpf_program__name", "btf__name_by_offset")


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf itself; raises `UnsupportedError` where it is missing."""
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise UnsupportedError("libbpf.so.1 is missing", hint="apt-get install libbpf1") from error
    for name in _POINTER_RESULTS:
        getattr(lib, name).restype = ctypes.c_void_p
    for name in _STRING_RESULTS:
        getattr(lib, name).restype = ctypes.c_char_p
    lib.btf__resolve_size.restype = ctypes.c_int64
    lib.libbpf_set_print.restype = ctypes.c_void_p
    lib.libbpf_set_print(_collect)
    return lib


def call(what: str, function: str, *arguments: Any) -> int:
    """Calls a libbpf function that returns a negative errno on failure; returns its non-negative result."""
    result: int = getattr(library(), function)(*arguments)
    if result < 0:
        raise BpfError(what, ctypes.get_errno() or -result)
    return result


def pointer(what: str, function: str, *arguments: Any) -> ctypes.c_void_p:
    """Calls a libbpf function that returns NULL with errno set on failure."""
    result = getattr(library(), function)(*arguments)
    if not result:
        raise BpfError(what, ctypes.get_errno() or errno.ENOENT)
    return ctypes.c_void_p(result)


def obj_get(path: str) -> int:
    """Opens a pinned object; returns a descriptor that the caller closes."""
    return call(f"opening the pin {path}", "bpf_obj_get", path.encode())


def obj_pin(fd: int, path: str) -> None:
    call(f"pinning {path}", "bpf_obj_pin", fd, path.encode())


def prog_attach(program: int, target: int, attach_type: int) -> None:
    call("attaching to the sockhash", "bpf_prog_attach", program, target, attach_type, 0)


def link_create(program: int, cgroup: int, attach_type: int, what: str) -> int:
    """Attaches a program to a cgroup beside whatever is there; returns the link's descriptor."""
    return call(f"attaching to {what}", "bpf_link_create", program, cgroup, attach_type, None)


def link_update(link: int, program: int) -> None:
    """Exchanges a link's program in one step."""
    call("exchanging the program of a link", "bpf_link_update", link, program, None)


def hash_map(name: str, key_size: int, value_size: int, entries: int) -> int:
    """Makes a hash map without preallocation; returns its descriptor."""
    options = MapOptions(sz=ctypes.sizeof(MapOptions), map_flags=BPF_F_NO_PREALLOC)
    return call(
        f"making {name}", "bpf_map_create", BPF_MAP_TYPE_HASH, name.encode(), key_size, value_size, entries,
        ctypes.byref(options),
    )  # fmt: skip


def map_by_id(identifier: int) -> int:
    """Opens a map by its id; returns a descriptor that the caller closes."""
    return call("opening a map", "bpf_map_get_fd_by_id", identifier)


def program_info(fd: int) -> ProgramInfo:
    return _info(ProgramInfo(), fd, "program")


def map_info(fd: int) -> MapInfo:
    return _info(MapInfo(), fd, "map")


def link_info(fd: int) -> CgroupLinkInfo:
    return _info(CgroupLinkInfo(), fd, "link")


def _info(info: Info, fd: int, what: str) -> Info:
    size = ctypes.c_uint32(ctypes.sizeof(info))
    call(f"reading {what} information", "bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))
    return info


def test_run(program: int) -> int:
    """Runs a `SEC("syscall")` program once; returns what it returned."""
    return _run(program, TestRunOptions(sz=ctypes.sizeof(TestRunOptions)))


def run_on_packet(program: int, packet: bytes) -> int:
    """Runs a program for packets once, on one; returns what it returned."""
    data = ctypes.create_string_buffer(packet, len(packet))
    options = TestRunOptions(sz=ctypes.sizeof(TestRunOptions), data_size_in=len(packet))
    options.data_in = ctypes.cast(data, ctypes.c_void_p)
    return _run(program, options)


def _run(program: int, options: TestRunOptions) -> int:
    call("running a program", "bpf_prog_test_run_opts", program, ctypes.byref(options))
    return ctypes.c_int32(options.retval).value
