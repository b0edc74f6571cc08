"""One instance's data path: its programs, maps and attachments, loaded from the object or opened from the pins."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import platform
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from zerohop.errors import ZerohopError
from zerohop.kernel import cgroup, libbpf, pins
from zerohop.kernel.btf import Layouts
from zerohop.kernel.histograms import CELL_NS, DURATION_NS, SIZE_BYTES, fill_bounds
from zerohop.kernel.maps import GrowingMap, Map, memory_bytes, possible_cpus

# Map name to the types of its key and value; "u32" and "u64" are scalars, the rest structures in bpf/shared/types.h.
MAPS: Final[dict[str, tuple[str, str]]] = {
    "settings": ("u32", "settings"),
    "cgroups": ("cgroup_key", "cgroup_node"),
    "workloads": ("u32", "workload"),
    "ports": ("port_key", "port"),
    "handshakes": ("end_key", "handshake"),
    "connections": ("u64", "connection"),
    "sockets": ("end_key", "u64"),
    "counters": ("u32", "counters"),
    "activities": ("u32", "activity"),
    "inspections": ("u32", "inspection"),
    "workload_connections": ("u32", "workload_connections"),
    "services": ("u32", "service"),
    "endpoints": ("endpoint_key", "endpoint"),
    "virtuals": ("endpoint_key", "virtual_service"),
    "backends": ("backend_key", "backend"),
    "dead_endpoints": ("endpoint_key", "u64"),
    "methods": ("method_key", "method"),
    "method_counts": ("u32", "u32"),
    "buckets": ("u32", "buckets"),
    "series": ("series_key", "series"),
    "spare_series": ("series_key", "series"),
    "tcp_series": ("tcp_series_key", "tcp_series"),
    "open_calls": ("series_key", "u64"),
    "flows": ("u32", "flow"),
    "flow_counts": ("u32", "u64"),
    "policies": ("policy_key", "policy"),
    "policy_rows": ("u32", "u32"),
    "policy_blocks": ("block_key", "u32"),
    "policy_names": ("u32", "policy_name"),
}
# The programs' own, pinned all the same: so that what they hold can be accounted for.
PRIVATE_MAPS: Final = (
    "memberships",
    "dials",
    "readings",
    "shared_calls",
    "calls",
    "pieces",
    "scratches",
    "resets",
    "client_texts",
)
# What a build takes over from the one before, if it is of the same size: what open sockets say of themselves.
INHERITED: Final = ("dials",)
# What one build needs of another's, to let its connections go and to see which cgroups are taken.
SHARED_BY_BUILDS: Final = ("connections", "cgroups")
GROWING: Final = frozenset({"settings"})
GRPC_STATUS_NONE: Final = 255  # bpf/shared/telemetry.h
PER_CPU: Final = frozenset({"counters", "series", "flow_counts"})
# Of these every CPU has a part of its own, of as many entries as the object says.
BY_CPU: Final = ("flows", "scratches")
PROGRAMS: Final = (
    "zerohop_sockops",
    "zerohop_sender",
    "zerohop_receiver",
    "zerohop_inspect",
    "zerohop_open_calls",
    "zerohop_judge_all",
    "zerohop_guard",
    "zerohop_options",
    "zerohop_connect4",
    "zerohop_connect6",
    "zerohop_peername4",
    "zerohop_peername6",
)


@dataclass(frozen=True)
class CgroupHook:
    """`attach_type`: of enum bpf_attach_type."""

    program: str
    attach_type: int


# By the folder of their links. In this order: no member without the hook that keeps it from harm, and no connection to
# another address without those that hide it.
CGROUP_HOOKS: Final = {
    "option_links": CgroupHook("zerohop_options", libbpf.BPF_CGROUP_SETSOCKOPT),
    "links": CgroupHook("zerohop_sockops", libbpf.BPF_CGROUP_SOCK_OPS),
    "peername4_links": CgroupHook("zerohop_peername4", libbpf.BPF_CGROUP_INET4_GETPEERNAME),
    "peername6_links": CgroupHook("zerohop_peername6", libbpf.BPF_CGROUP_INET6_GETPEERNAME),
    "connect4_links": CgroupHook("zerohop_connect4", libbpf.BPF_CGROUP_INET4_CONNECT),
    "connect6_links": CgroupHook("zerohop_connect6", libbpf.BPF_CGROUP_INET6_CONNECT),
    "guard_links": CgroupHook("zerohop_guard", libbpf.BPF_CGROUP_INET_INGRESS),
}
# These see every packet: they are attached only while there are policies.
POLICY_HOOKS: Final = frozenset({"guard_links"})

INSPECTION_SECONDS: Final = 5.0

# Of one destination, unless the agent is told otherwise.
MAX_METHODS: Final = 500

_SCALARS: Final[dict[str, type[Any]]] = {"u32": ctypes.c_uint32, "u64": ctypes.c_uint64}


def object_path() -> Path:
    """The BPF object: the package's own, or the one that ZEROHOP_OBJECT names (tests of deliberately broken builds)."""
    override = os.environ.get("ZEROHOP_OBJECT")
    if override:
        return Path(override)
    path = Path(str(resources.files("zerohop.kernel") / "objects" / "zerohop.bpf.o"))
    if not path.exists():
        raise ZerohopError(
            "the package has no BPF object",
            hint="install it with pip, or run python hatch_build.py in a source tree",
        )
    return path


def build_of(path: Path) -> bytes:
    """The build's identity: SHA-256 of its object."""
    return hashlib.sha256(path.read_bytes()).digest()


class DataPath:
    """Descriptors of one instance's maps and programs. Use as a context manager; closing leaves the kernel's side."""

    def __init__(self, folder: Path, layouts: Layouts) -> None:
        self.folder = folder
        self.layouts = layouts
        self.maps: dict[str, Map] = {}
        self.programs: dict[str, int] = {}
        self.unknown: dict[str, str] = {}  # of `open_any`: maps that are not in `maps`, and why

    def __enter__(self) -> DataPath:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for table in self.maps.values():
            table.close()
        for fd in self.programs.values():
            os.close(fd)
        self.programs = {}
        self.layouts.close()

    @classmethod
    def load(cls, folder: Path, predecessor: Path | None = None) -> DataPath:
        """Loads the object, attaches its socket hooks to its sockhash and pins everything under `folder`.

        `predecessor`: the pins of a data path of which this one keeps the maps in `INHERITED`, where it can. Nothing is
        attached to a cgroup yet, so no connection is touched. Raises `BpfError`; when the verifier refused, the error
        quotes it and nothing stays pinned.
        """
        source = object_path()
        libbpf.messages.clear()
        handle = libbpf.pointer(f"opening {source}", "bpf_object__open_file", str(source).encode(), None)
        lib = libbpf.library()
        try:
            for name in BY_CPU:
                table = libbpf.pointer(name, "bpf_object__find_map_by_name", handle, name.encode())
                size = lib.bpf_map__max_entries(table) * possible_cpus()
                libbpf.call(f"sizing {name}", "bpf_map__set_max_entries", table, size)
            if predecessor is not None:
                for name in INHERITED:
                    _inherit(handle, name, predecessor / "maps" / name)
            try:
                libbpf.call("loading the BPF programs", "bpf_object__load", handle)
            except libbpf.BpfError as error:
                raise _load_error(error) from error
            try:
                for name in ("maps", "programs", *CGROUP_HOOKS):
                    (folder / name).mkdir(parents=True)
                for name in (*MAPS, *PRIVATE_MAPS):
                    table = libbpf.pointer(name, "bpf_object__find_map_by_name", handle, name.encode())
                    libbpf.obj_pin(lib.bpf_map__fd(table), str(folder / "maps" / name))
                for name in PROGRAMS:
                    program = libbpf.pointer(name, "bpf_object__find_program_by_name", handle, name.encode())
                    libbpf.obj_pin(lib.bpf_program__fd(program), str(folder / "programs" / name))
                path = cls._open(folder, source)
                path._start(source)
            except BaseException:
                pins.remove(folder)
                raise
        finally:
            lib.bpf_object__close(handle)
        return path

    def _start(self, source: Path) -> None:
        """Attaches the socket hooks to the sockhash and writes the first settings."""
        sockets = self.maps["sockets"].fd
        libbpf.prog_attach(self.programs["zerohop_sender"], sockets, libbpf.BPF_SK_MSG_VERDICT)
        libbpf.prog_attach(self.programs["zerohop_receiver"], sockets, libbpf.BPF_SK_SKB_VERDICT)
        settings = self.layouts.struct("settings")()
        settings.root_cgroup = cgroup.identifier(cgroup.mount_point()) or 0
        settings.shortcut = 1
        settings.engine = 1
        settings.method_seed = secrets.randbits(64)
        settings.max_methods = MAX_METHODS
        settings.flow_sampling = 1
        settings.ordered_stores = platform.machine() == "x86_64"
        ctypes.memmove(ctypes.byref(settings, type(settings).build.offset), build_of(source), 32)
        self.write_settings(settings)
        buckets = self.layouts.struct("buckets")()
        fill_bounds(buckets.duration_ns, DURATION_NS, buckets.duration_cells, CELL_NS)
        fill_bounds(buckets.bytes, SIZE_BYTES, buckets.size_cells, 1)
        self.maps["buckets"].put(ctypes.c_uint32(0), buckets)
        # The overflow row (bpf/mesh/rows.h): always there, so that a call is counted even when no other can be made.
        overflow = self.layouts.struct("series_key")(
            ending=self.layouts.enum("ending")["ENDING_COMPLETE"],
            grpc_status=GRPC_STATUS_NONE,
            protocol=self.layouts.enum("protocol")["PROTOCOL_HTTP2"],
        )
        self.maps["series"].put(overflow, (self.layouts.struct("series") * possible_cpus())())

    @classmethod
    def open(cls, instance: str) -> DataPath:
        """Opens an instance's pins; raises `ZerohopError` when it has none, or another build's."""
        return cls._open(_set_up(instance), object_path())

    @classmethod
    def open_any(cls, instance: str) -> DataPath:
        """Opens the pins of whatever build made them: the settings and `SHARED_BY_BUILDS`, no more.

        The settings are read by this build's layout, of which both have the beginning; the rest by the layouts that the
        kernel keeps with the maps. What is not there or not as this build expects is left out and stands in `unknown`.
        Raises `ZerohopError` when not even the settings are there.
        """
        path = cls(_set_up(instance), Layouts.of_object(object_path()))
        try:
            path._open_map("settings")
            own, path.layouts = path.layouts, Layouts.of_map(path.maps["settings"].fd)
            own.close()
            for name in SHARED_BY_BUILDS:
                try:
                    path._open_map(name)
                except (ZerohopError, TypeError) as error:
                    path.unknown[name] = str(error)
        except BaseException:
            path.close()
            raise
        return path

    @classmethod
    def _open(cls, folder: Path, source: Path) -> DataPath:
        path = cls(folder, Layouts.of_object(source))
        try:
            for name in MAPS:
                path._open_map(name)
            for name in PROGRAMS:
                path.programs[name] = libbpf.obj_get(str(folder / "programs" / name))
        except BaseException:
            path.close()
            raise
        return path

    def _open_map(self, name: str) -> None:
        key, value = (_SCALARS.get(each) or self.layouts.struct(each) for each in MAPS[name])
        fd = libbpf.obj_get(str(self.folder / "maps" / name))
        kind = GrowingMap if name in GROWING else Map
        self.maps[name] = kind(name, fd, key, value, per_cpu=name in PER_CPU)

    def memory_bytes(self) -> int:
        """What the kernel accounts for all maps (`memlock` in their fdinfo)."""
        total = sum(table.memory_bytes() for table in self.maps.values())
        for name in PRIVATE_MAPS:
            fd = libbpf.obj_get(str(self.folder / "maps" / name))
            try:
                total += memory_bytes(fd)
            finally:
                os.close(fd)
        return total

    # Settings

    def settings(self) -> Any:
        return self.maps["settings"].get(ctypes.c_uint32(0))

    def write_settings(self, settings: Any) -> None:
        self.maps["settings"].put(ctypes.c_uint32(0), settings)

    def is_current_build(self) -> bool:
        """Whether the pins come from this package's object: only then are its layouts theirs."""
        return bytes(self.settings().build) == build_of(object_path())

    def lost_pins(self) -> list[Path]:
        """Pins of this data path that are gone, or are another data path's by now."""
        wanted = [self.folder / name for name in CGROUP_HOOKS]
        wanted += [self.folder / "maps" / name for name in (*MAPS, "memberships")]
        wanted += [self.folder / "programs" / name for name in PROGRAMS]
        lost = [path for path in wanted if not path.exists()]
        return lost if lost or self._owns_pins() else wanted

    def _owns_pins(self) -> bool:
        """Whether what is pinned is this data path: ids are not used again while a descriptor is open."""
        fd = libbpf.obj_get(str(self.folder / "maps" / "settings"))
        try:
            return int(libbpf.map_info(fd).id) == int(libbpf.map_info(self.maps["settings"].fd).id)
        finally:
            os.close(fd)

    def require_pinned(self) -> None:
        """Raises `ZerohopError` when the pins are gone or another data path's: what is open here stays as it is."""
        try:
            own = self._owns_pins()
        except libbpf.BpfError as error:
            if error.errno != errno.ENOENT:
                raise
            raise self._removed() from None
        if not own:
            raise ZerohopError(
                f"the data path of instance {self.folder.name!r} was replaced by another",
                hint="start this command again: it shows the new one",
            )

    def _removed(self) -> ZerohopError:
        return ZerohopError(
            f"the data path of instance {self.folder.name!r} was removed",
            hint="set it up with sudo zerohop run -c PATH, then start this command again",
        )

    # Attachments

    def attached(self) -> set[int]:
        """Ids of the cgroups at which at least one hook is attached."""
        return {int(name) for hook in CGROUP_HOOKS for name in os.listdir(self.folder / hook)}

    def attach(self, path: str, *, policies: bool) -> None:
        """Attaches the cgroup hooks to a cgroup (its subtree); a no-op for those that are there already.

        `policies`: whether there are any; `POLICY_HOOKS` are let go where there are none.
        """
        target = cgroup.absolute(path)
        identifier = cgroup.identifier(target)
        if not policies:
            for name in POLICY_HOOKS:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.folder / name / str(identifier))
        wanted = [name for name in CGROUP_HOOKS if policies or name not in POLICY_HOOKS]
        missing = [name for name in wanted if not (self.folder / name / str(identifier)).exists()]
        if identifier is None or not missing:
            return
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in missing:
                hook = CGROUP_HOOKS[name]
                link = libbpf.link_create(self.programs[hook.program], fd, hook.attach_type, f"the cgroup {path}")
                try:
                    libbpf.obj_pin(link, str(self.folder / name / str(identifier)))
                finally:
                    os.close(link)
        finally:
            os.close(fd)

    def detach(self, identifier: int) -> None:
        """Removes the attachments to one cgroup."""
        for name in reversed(CGROUP_HOOKS):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.folder / name / str(identifier))

    # Inspection

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other inspections of this data path away.

        Raises `ZerohopError` when one does not end, and when the pins are gone.
        """
        try:
            lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise self._removed() from None
        deadline = time.monotonic() + INSPECTION_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ZerohopError(
                            f"another process has been inspecting {self.folder} for {INSPECTION_SECONDS:.0f} s",
                            hint=f"end it (fuser -v {self.folder} names it), then try again",
                        ) from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(lock)

    def walk(self) -> Any:
        """Walks the open connections once; returns `struct inspection`. The caller holds `exclusive`.

        `workload_connections` belongs to this walk for as long as that is held.
        """
        table = self.maps["workload_connections"]
        for key in list(table.keys()):
            table.delete(key)
        if libbpf.test_run(self.programs["zerohop_inspect"]) < 0:
            raise ZerohopError("the kernel refused to walk the connections")
        return self.maps["inspections"].get(ctypes.c_uint32(0))

    def judge_all(self) -> None:
        """Judges the open connections again, and asks for the reset of all that policies forbid."""
        libbpf.run_on_packet(self.programs["zerohop_judge_all"], bytes(64))

    def open_calls(self) -> list[tuple[Any, int]]:
        """Walks the calls in flight once: `struct series_key` and how many there are."""
        table = self.maps["open_calls"]
        with self.exclusive():
            for key in list(table.keys()):
                table.delete(key)
            if libbpf.test_run(self.programs["zerohop_open_calls"]) < 0:
                raise ZerohopError("the kernel refused to walk the calls")
            return list(table.items())

    @contextlib.contextmanager
    def inspection(self) -> Iterator[Any]:
        """A walk, for as long as its results are needed; yields `struct inspection`."""
        with self.exclusive():
            yield self.walk()


def _inherit(handle: ctypes.c_void_p, name: str, pin: Path) -> None:
    """Makes an object that is not loaded yet use a pinned map, unless there is none like its own."""
    table = libbpf.pointer(name, "bpf_object__find_map_by_name", handle, name.encode())
    with contextlib.suppress(libbpf.BpfError):
        fd = libbpf.obj_get(str(pin))
        try:
            if libbpf.map_info(fd).value_size == libbpf.library().bpf_map__value_size(table):
                libbpf.call(f"taking over {name}", "bpf_map__reuse_fd", table, fd)
        finally:
            os.close(fd)


def _set_up(instance: str) -> Path:
    """The folder of an instance's pins; raises `ZerohopError` when it has none."""
    folder = pins.folder(instance)
    if not (folder / "maps" / "settings").exists():
        raise ZerohopError(f"instance {instance!r} is not set up here", hint="start it with sudo zerohop run -c PATH")
    return folder


def _load_error(error: libbpf.BpfError) -> libbpf.BpfError:
    """The verifier's last words; ZEROHOP_VERIFIER_LOG names a file for all of them."""
    text = "".join(libbpf.messages)
    log = os.environ.get("ZEROHOP_VERIFIER_LOG")
    if log:
        Path(log).write_text(text)
    lines = [
        line for line in text.splitlines() if line and not line.startswith(("processed", "-- END", "libbpf: failed"))
    ]
    tail = "\n    ".join(lines[-6:])
    return libbpf.BpfError(
        f"loading the BPF programs failed; the kernel said\n    {tail}\n ",
        error.errno,
        hint="run sudo zerohop doctor; ZEROHOP_VERIFIER_LOG=FILE keeps the whole log",
    )
