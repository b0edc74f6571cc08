"""Tells when a configuration may have changed: inotify, through libc, so that no further library is needed.

What is watched follows the path as the kernel would: every symbolic link on the way (Kubernetes swaps `..data`), every
directory on the way (it may be moved or removed), and where a part is missing, the directory in which it may appear.
"""

from __future__ import annotations

import ctypes
import logging
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from zerohop.config.files import is_configuration

log = logging.getLogger("zerohop")

_IN_ATTRIB: Final = 0x4
_IN_CLOSE_WRITE: Final = 0x8
_IN_MOVED_FROM: Final = 0x40
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_IN_DELETE_SELF: Final = 0x400
_IN_MOVE_SELF: Final = 0x800
_IN_UNMOUNT: Final = 0x2000
_IN_Q_OVERFLOW: Final = 0x4000
_IN_IGNORED: Final = 0x8000
_IN_ONLYDIR: Final = 0x1000000

_SELF: Final = _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_ENTRIES: Final = _IN_ATTRIB | _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_LINK_LIMIT: Final = 40  # the kernel's own (ELOOP)
_EVENT: Final = struct.Struct("iIII")


@dataclass(slots=True)
class _Interest:
    """Which entries of a directory matter; `files`: those that a configuration directory counts, too."""

    path: str
    names: set[str] = field(default_factory=set)
    files: bool = False

    def matters(self, name: str) -> bool:
        return name in self.names or (self.files and is_configuration(name))


class ConfigWatcher:
    """A file descriptor that becomes readable when the file or directory at `path` may have changed.

    Hints, not truth: there may be one without a change, and none for what inotify cannot see (a file changed through
    another mount, or with `mmap`); compare `zerohop.config.digest` every few seconds besides. Where the system grants
    no inotify the descriptor never becomes readable, and a warning is logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.path.abspath(path)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watches: dict[int, _Interest] = {}
        self._warned = False
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._works = self._fd >= 0
        if not self._works:
            self._warn(ctypes.get_errno(), "fs.inotify.max_user_instances")
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watch()

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._fd

    def drain(self) -> bool:
        """Takes the events that came, without waiting. True if the configuration may have changed."""
        if not self._works:
            return False
        relevant = False
        for watch, mask, name in self._events():
            if mask & _IN_Q_OVERFLOW:
                relevant = True
            elif watch in self._watches:
                relevant = self._is_relevant(self._watches[watch], mask, name) or relevant
        if relevant:
            self._watch()
        return relevant

    def close(self) -> None:
        """Lets go of the descriptor and with it of every watch; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._works = False
        self._watches.clear()

    def _events(self) -> Iterator[tuple[int, int, str]]:
        while True:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return
            position = 0
            while position < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size
                name = data[position : position + length].rstrip(b"\0")
                position += length
                yield watch, mask, os.fsdecode(name)

    def _is_relevant(self, interest: _Interest, mask: int, name: str) -> bool:
        if mask & (_IN_DELETE_SELF | _IN_MOVE_SELF | _IN_UNMOUNT | _IN_IGNORED):
            return True
        if not interest.matters(name):
            return False
        if mask & _IN_CREATE:
            # A file that was just made is still being written; when its writer closes it there is another event.
            return not _is_new_file(os.path.join(interest.path, name))
        return True

    def _watch(self) -> None:
        """Makes the watches fit the file system as it is now.

        A directory may change between being looked at and being watched, so it repeats until nothing moves; what
        moves for longer than a few rounds makes events of its own.
        """
        for _ in range(8):
            before = self._watches
            self._watches = self._add_all()
            for watch in before.keys() - self._watches.keys():
                self._libc.inotify_rm_watch(self._fd, watch)
            if before == self._watches:
                return

    def _add_all(self) -> dict[int, _Interest]:
        found: dict[int, _Interest] = {}
        if not self._works:
            return found
        for interest in _plan(self._path):
            mask = _SELF | (_ENTRIES if interest.names or interest.files else 0)
            watch = self._libc.inotify_add_watch(self._fd, os.fsencode(interest.path), mask)
            if watch >= 0:
                found[watch] = interest
            elif (error := ctypes.get_errno()) == 28:  # ENOSPC
                self._warn(error, "fs.inotify.max_user_watches")
        return found

    def _warn(self, error: int, limit: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "inotify: %s: changes of the configuration are only seen every few seconds (raise sysctl %s)",
                os.strerror(error),
                limit,
            )


def _is_new_file(path: str) -> bool:
    """A file with one name: neither a directory, nor a link of any kind to what is complete already."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _plan(path: str) -> list[_Interest]:
    """The directories to watch for a configuration at `path`, each once also where mounts show it twice."""
    plan: dict[tuple[int, int], _Interest] = {}
    final = _follow(path, plan)
    if final is not None and os.path.isdir(final):
        here = _interest(final, plan)
        if here is not None:
            here.files = True
            for name in _entries(final):
                if is_configuration(name) and os.path.islink(os.path.join(final, name)):
                    _follow(os.path.join(final, name), plan)
    return list(plan.values())


def _follow(path: str, plan: dict[tuple[int, int], _Interest]) -> str | None:
    """Adds what the way to `path` depends on; returns where it ends, None where it ends nowhere."""
    current = "/"
    parts = [part for part in reversed(path.split("/")) if part]
    links = 0
    here = _interest(current, plan)
    while parts:
        part = parts.pop()
        if part == ".":
            continue
        if part == "..":
            current = os.path.dirname(current)
            here = _interest(current, plan)
            continue
        full = os.path.join(current, part)
        try:
            mode = os.lstat(full).st_mode
            target = os.readlink(full) if stat.S_ISLNK(mode) else None
        except OSError:
            mode, target = 0, None
        # The entries of a directory on the way matter only where a link may be swapped, the last part
        # be replaced, or a missing one appear: /tmp and /run are too busy to wake up for.
        if here is not None and not (stat.S_ISDIR(mode) and parts):
            here.names.add(part)
        if target is not None:
            links += 1
            if links > _LINK_LIMIT:
                return None
            if target.startswith("/"):
                current = "/"
                here = _interest(current, plan)
            parts.extend(piece for piece in reversed(target.split("/")) if piece)
        elif stat.S_ISDIR(mode):
            current = full
            here = _interest(current, plan)
        else:
            return full if mode and not parts else None
    return current


def _interest(directory: str, plan: dict[tuple[int, int], _Interest]) -> _Interest | None:
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return plan.setdefault((status.st_dev, status.st_ino), _Interest(directory))


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
