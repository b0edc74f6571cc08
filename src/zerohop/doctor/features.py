"""Feature probes: each tries the thing itself; none guesses from a version."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zerohop.doctor.checks import Broken, Check, Effect, Result, Subject, Unknown
from zerohop.doctor.child import Step
from zerohop.doctor.child import run as run_child
from zerohop.doctor.laboratory import Laboratory
from zerohop.errors import ZerohopError
from zerohop.kernel import libbpf, mounts, seccomp
from zerohop.kernel.datapath import PROGRAMS

BTF: Final = Path("/sys/kernel/btf/vmlinux")
_BTF_MAGIC: Final = (b"\x9f\xeb", b"\xeb\x9f")
_PIDFD_GETFD: Final = 438
_SECONDS: Final = 5.0


def _refuse(name: str, consequence: str) -> Subject:
    return Subject(name, Effect.REFUSE, f"run cannot work here; {consequence}")


_ROOT: Final = _refuse("root", "run sudo zerohop")
_CGROUP2: Final = _refuse("cgroup2", "mount -t cgroup2 none /sys/fs/cgroup")
_BPFFS: Final = _refuse("bpffs", "mount -t bpf bpf /sys/fs/bpf")
_BTF: Final = _refuse("btf", "use a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions do")
_LIBBPF: Final = _refuse("libbpf", "apt-get install libbpf1")
_OBJECT: Final = _refuse("object", "use a newer kernel; ZEROHOP_VERIFIER_LOG=FILE keeps the verifier's log")
_HOOKS: Final = _refuse("socket-hooks", "use a kernel built with CONFIG_BPF_STREAM_PARSER")
_SOCKOPS: Final = _refuse("sockops", "use a kernel built with CONFIG_CGROUP_BPF and links to cgroups")
_INSPECT: Final = Subject("inspect", Effect.DEGRADES, "status and metrics do not show open connections")
_SECCOMP: Final = Subject(
    "seccomp", Effect.DEGRADES, "zerohop exec needs --allow-splice: programs that splice must not be its workloads"
)
_PIDFD: Final = Subject(
    "pidfd-getfd", Effect.DEGRADES, "clean cannot wake idle connections: their programs stay until they close"
)
_LOADED: Final = (_OBJECT, _HOOKS, _SOCKOPS, _INSPECT)


def prerequisites() -> list[Check]:
    """What must be there before anything can be loaded; needs no rights itself."""
    return [
        _probe(subject, look)
        for subject, look in (
            (_ROOT, _root),
            (_CGROUP2, _cgroup2),
            (_BPFFS, _bpffs),
            (_BTF, _btf),
            (_LIBBPF, _libbpf),
        )
    ]


def load(lab: Laboratory) -> list[Check]:
    """Loads and attaches into `lab`; all are ok when experiments can follow."""
    checks: list[Check] = []
    for subject, step in zip(_LOADED, (_object, _socket_hooks, _sockops, _inspect), strict=True):
        if checks and checks[-1].result is not Result.OK:
            checks.append(subject.skipped(f"needs {checks[0].name}"))
        else:
            checks.append(_probe(subject, functools.partial(step, lab)))
    return checks


def not_loaded() -> list[Check]:
    """The answers of `load` where it cannot be tried."""
    return [subject.skipped("a prerequisite is missing") for subject in _LOADED]


def system_calls() -> list[Check]:
    """What commands use beside BPF."""
    return [run_child(_SECCOMP, _seccomp, seconds=_SECONDS), run_child(_PIDFD, _pidfd_getfd, seconds=_SECONDS)]


def _probe(subject: Subject, look: Callable[[], str]) -> Check:
    try:
        return subject.ok(look())
    except Unknown as answer:
        return subject.unknown(str(answer))
    except (Broken, ZerohopError, OSError) as answer:
        return subject.broken(str(answer))


def _root() -> str:
    if os.geteuid() != 0:
        raise Broken(f"user id {os.geteuid()}")
    return "user id 0"


def _cgroup2() -> str:
    found = mounts.find("cgroup2")
    if found is None:
        raise Broken("no cgroup v2 hierarchy is mounted")
    hybrid = ", beside cgroup v1" if mounts.find("cgroup") is not None else ""
    return f"mounted at {found}{hybrid}"


def _bpffs() -> str:
    if os.geteuid() != 0:
        raise Unknown("only root can look")
    found = mounts.find("bpf")
    if found is not None:
        return f"mounted at {found}"
    if "bpf" in Path("/proc/filesystems").read_text().split():
        return "not mounted; run mounts it at /sys/fs/bpf"
    raise Broken("the kernel has no bpf file system")


def _btf() -> str:
    try:
        with BTF.open("rb") as file:
            magic = file.read(2)
    except FileNotFoundError:
        raise Broken(f"{BTF} is missing") from None
    if magic not in _BTF_MAGIC:
        raise Broken(f"{BTF} is not BTF")
    return f"{BTF}, {BTF.stat().st_size} bytes"


def _libbpf() -> str:
    library = libbpf.library()
    return f"libbpf {library.libbpf_major_version()}.{library.libbpf_minor_version()}"


def _object(lab: Laboratory) -> str:
    lab.load()
    verified = sum(libbpf.program_info(fd).verified_insns for fd in lab.path.programs.values())
    return f"{len(PROGRAMS)} programs, {verified} instructions verified"


def _socket_hooks(lab: Laboratory) -> str:
    sockets = lab.path.maps["sockets"].fd
    libbpf.prog_attach(lab.path.programs["zerohop_sender"], sockets, libbpf.BPF_SK_MSG_VERDICT)
    libbpf.prog_attach(lab.path.programs["zerohop_receiver"], sockets, libbpf.BPF_SK_SKB_VERDICT)
    return "sk_msg and sk_skb verdict attached to a sockhash"


def _sockops(lab: Laboratory) -> str:
    lab.attach()
    return "attached to a cgroup of doctor's own by a link"


def _inspect(lab: Laboratory) -> str:
    answer = libbpf.test_run(lab.path.programs["zerohop_inspect"])
    if answer < 0:
        raise Broken(f"the walk over the connections answers {answer}")
    return "a syscall program walks the connections"


def _seccomp(step: Step) -> str:
    seccomp.refuse_unserved(splice=True)
    read_end, write_end = os.pipe()
    try:
        os.splice(read_end, write_end, 1, flags=os.SPLICE_F_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return f"splice answers EINVAL under the filter ({platform.machine()})"
    raise Broken("splice is not refused under the filter")


def _pidfd_getfd(step: Step) -> str:
    fd = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, os.pidfd_open(os.getpid()), 0, 0)
    if fd < 0:
        raise Broken(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    return "duplicates another process's descriptor"
