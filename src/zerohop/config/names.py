"""Which names, numbers, addresses and paths are valid. Each check returns what is wrong, or None."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from zerohop.config.errors import shown

# What the kernel's tables hold: bpf/shared/bounds.h, compared by tests/unit/test_compiler.py.
MAX_WORKLOADS: Final = 8192
MAX_PORTS: Final = 65536
MAX_SERVICES: Final = 16384
MAX_ENDPOINTS: Final = 65536
MAX_VIRTUALS: Final = 65536
MAX_BACKENDS: Final = 524288
MAX_CGROUP_NODES: Final = 65536
MAX_CGROUP_DEPTH: Final = 16
MAX_CGROUP_NAME: Final = 127

RESERVED_CGROUP: Final = "zerohop"
UNIT_TYPES: Final = ("service", "scope", "slice")
_OTHER_UNIT_TYPES: Final = ("socket", "mount", "swap", "timer", "path", "target", "device", "automount")

# The kernel's own files in every cgroup begin so; a cgroup for a workload of that name cannot be made.
_CGROUP_FILES: Final = re.compile(r"(cgroup|cpu|cpuset|dmem|hugetlb|io|irq|memory|misc|perf_event|pids|rdma)\.")

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]+")
_PORT_NAME: Final = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Fault(NamedTuple):
    message: str
    hint: str


Check = Callable[[str], Fault | None]


def _repaired(value: str, *, dots: bool, limit: int) -> str | None:
    """The valid name that somebody who wrote `value` most likely meant."""
    allowed = r"[^a-z0-9.]+" if dots else r"[^a-z0-9]+"
    parts = re.sub(allowed, "-", value[:1000].lower()).split(".")
    return ".".join(filter(None, (part.strip("-") for part in parts)))[:limit].strip("-.") or None


def _dns(value: str, pattern: re.Pattern[str], *, dots: bool, limit: int) -> Fault | None:
    if len(value) <= limit and pattern.fullmatch(value):
        return None
    rule = f"lower-case letters, digits{', dots' if dots else ''} and '-', at most {limit}"
    example = _repaired(value, dots=dots, limit=limit)
    return Fault(f"{shown(value)} is not a DNS-1123 name", f"use {rule}" + (f", as in {example!r}" if example else ""))


def dns_label(value: str) -> Fault | None:
    """A DNS-1123 label: namespaces, Services, port names."""
    return _dns(value, _LABEL, dots=False, limit=63)


def dns_subdomain(value: str) -> Fault | None:
    """A DNS-1123 subdomain: most Kubernetes names, service accounts."""
    return _dns(value, _SUBDOMAIN, dots=True, limit=253)


def workload_name(value: str) -> Fault | None:
    """A subdomain that can also name the cgroup in which `zerohop exec` starts programs."""
    fault = _dns(value, _SUBDOMAIN, dots=True, limit=MAX_CGROUP_NAME)
    if fault is None and _CGROUP_FILES.match(value):
        return Fault(
            f"{shown(value)} cannot name a cgroup: the kernel's own files there begin with '{value.split('.')[0]}.'",
            f"use a '-', as in {value.replace('.', '-', 1)!r}",
        )
    return fault


def target_port_name(value: str) -> Fault | None:
    """An IANA service name, as Kubernetes names container ports."""
    if len(value) <= 15 and _PORT_NAME.fullmatch(value):
        return None
    return Fault(
        f"{shown(value)} is neither a port number nor a port's name",
        "write a number from 1 to 65535, or at most 15 lower-case letters, digits and '-'",
    )


def label_key(value: str) -> Fault | None:
    """`name` or `prefix/name`, as Kubernetes has it; also of appProtocol and annotations."""
    prefix, slash, name = value.rpartition("/")
    if slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        return Fault(
            f"{shown(value)}: {shown(prefix)} before the '/' is not a DNS-1123 name", "as in 'example.com/app'"
        )
    if len(name) > 63 or not _QUALIFIED.fullmatch(name):
        return Fault(
            f"{shown(value)} is not a valid name", "use at most 63 letters, digits, '-', '_' and '.', as in 'app'"
        )
    return None


def label_value(value: str) -> Fault | None:
    if value == "" or (len(value) <= 63 and _QUALIFIED.fullmatch(value)):
        return None
    return Fault(
        f"{shown(value)} is not a valid label value", "use at most 63 letters, digits, '-', '_' and '.', or nothing"
    )


def address(value: str) -> Fault | None:
    """An IPv4 or IPv6 address of one host."""
    try:
        parsed = ipaddress.ip_address(value)
    except ValueError:
        if "/" in value:
            return Fault(f"{shown(value)} is not an IP address", "write one address, without a prefix length")
        return Fault(f"{shown(value)} is not an IP address", 'as in 127.0.0.1 or "::1"')
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            return Fault(f"{shown(value)} carries a zone", f"write {str(parsed).split('%', 1)[0]!r}")
        if parsed.ipv4_mapped is not None:
            return Fault(f"{shown(value)} is an IPv4 address in IPv6 notation", f"write {parsed.ipv4_mapped}")
    if parsed.is_unspecified or parsed.is_multicast:
        what = "stands for any address" if parsed.is_unspecified else "is a multicast address"
        return Fault(f"{shown(value)} {what}", "write the address that clients connect to, as in 127.0.0.1")
    return None


def canonical_address(value: str) -> str:
    """The usual spelling of an address; anything else comes back as it is."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return value


def normal_cgroup(value: str) -> str:
    """`/a/b` for `a//b/`."""
    return "/" + "/".join(part for part in value.split("/") if part)


def cgroup_path(value: str) -> Fault | None:
    """A path below the cgroup v2 mount that the kernel's tables can hold."""
    path = normal_cgroup(value)
    parts = path.split("/")[1:]
    if path == "/":
        return Fault(f"{shown(value)} is the root of all cgroups", "name the cgroup of one service")
    if any(part in (".", "..") for part in parts) or any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        return Fault(f"{shown(value)} is not a plain path", "leave out '.', '..' and control characters")
    if path.startswith("/sys/fs/cgroup/"):
        rest = normal_cgroup(path.removeprefix("/sys/fs/cgroup/").removeprefix("unified/"))
        return Fault(f"{shown(value)} is not relative to the cgroup v2 mount", f"write {shown(rest)}")
    if parts[0] == RESERVED_CGROUP:
        return Fault(f"{shown(value)} is reserved for zerohop exec", "name another cgroup")
    if len(parts) > MAX_CGROUP_DEPTH:
        return Fault(f"{shown(value)} is {len(parts)} levels deep", f"at most {MAX_CGROUP_DEPTH} levels are followed")
    for part in parts:
        if len(part.encode()) > MAX_CGROUP_NAME:
            return Fault(f"{shown(part)} is too long for one cgroup", f"at most {MAX_CGROUP_NAME} bytes")
    return None


def unit_name(value: str) -> Fault | None:
    """A systemd unit that has processes: one service, scope or slice."""
    stem, _, kind = value.rpartition(".")
    if len(value) > MAX_CGROUP_NAME:
        return Fault(f"{shown(value)} is too long for a unit", f"at most {MAX_CGROUP_NAME} characters")
    if not _UNIT.fullmatch(value):
        return Fault(
            f"{shown(value)} is not a systemd unit name", "use letters, digits and :_.\\@-, as in cart.service"
        )
    if kind in _OTHER_UNIT_TYPES:
        return Fault(f"{shown(value)}: a {kind} has no processes of its own", f"name the service: '{stem}.service'")
    if kind not in UNIT_TYPES or not stem:
        return Fault(f"{shown(value)} is not a systemd unit name", f"write {value.rstrip('.') + '.service'!r}")
    if value == "-.slice":
        return Fault("'-.slice' is the root of all cgroups", "name the slice of one service")
    if "@" in stem and kind == "slice":
        return Fault(f"{shown(value)}: slices have no instances", "write it without '@'")
    if stem.startswith("@"):
        return Fault(f"{shown(value)} is not a systemd unit name", "put a name before '@'")
    if stem.endswith("@"):
        return Fault(f"{shown(value)} is a template", f"name an instance, as in '{stem}1.{kind}'")
    return None
