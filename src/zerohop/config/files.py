"""Which files make up a configuration, and what is in them."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zerohop.config.errors import Problems, Source

MAX_FILE_BYTES: Final = 32 << 20
SUFFIXES: Final = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class File:
    """`name` as messages print it; `content` is None where it could not be read."""

    name: str
    content: bytes | None


def printable(path: Path) -> str:
    """A path as text that can always be printed, also where its bytes are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_configuration(name: str) -> bool:
    """Whether a directory's entry counts. Hidden ones do not: editors keep their locks and copies there."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def read_files(path: Path, problems: Problems) -> list[File]:
    """The file, or the directory's `*.yaml` and `*.yml` in the order of their names (not of sub-directories)."""
    try:
        if not path.is_dir():
            return [_read(path, problems)]
        names = sorted(name for name in os.listdir(path) if is_configuration(name))
    except (OSError, ValueError) as error:
        _unreadable(path, error, problems)
        return []
    if not names:
        # An empty configuration would take every workload out while files are being replaced.
        problems.add(Source(printable(path), 1), "no *.yaml or *.yml in the directory", "add a file with a Workload")
    return [_read(path / name, problems) for name in names]


def digest(files: list[File]) -> str:
    """SHA-256 of names and contents, in hexadecimal."""
    state = hashlib.sha256()
    for file in files:
        content = file.content or b""
        state.update(f"{file.name}\0{len(content)}\0".encode())
        state.update(content)
    return state.hexdigest()


def decode(file: File, problems: Problems) -> str | None:
    """The file's text; None, with an error, where it is no UTF-8 or has nothing in it."""
    if file.content is None:
        return None
    try:
        return file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = file.content[: error.start]
        line_start = before.rfind(b"\n") + 1
        column = len(before[line_start:].decode("utf-8", "replace")) + 1
        source = Source(file.name, before.count(b"\n") + 1, column)
        problems.add(source, f"byte 0x{file.content[error.start]:02x} is not UTF-8", "save the file as UTF-8")
        problems.lose_all()
        return None


def _read(path: Path, problems: Problems) -> File:
    name = printable(path)
    try:
        # Non-blocking, or opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            problems.add(Source(name, 1), "not a regular file", "save the objects to a file")
            problems.lose_all()
            return File(name, None)
        with open(descriptor, "rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        _unreadable(path, error, problems)
        return File(name, None)
    if len(content) > MAX_FILE_BYTES:
        problems.add(Source(name, 1), f"larger than {MAX_FILE_BYTES >> 20} MiB", "split it into several files")
        problems.lose_all()
        return File(name, None)
    return File(name, content)


def _unreadable(path: Path, error: OSError | ValueError, problems: Problems) -> None:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hint = "check the path"
    if isinstance(error, PermissionError):
        hint = "make it readable, or run as a user who may read it"
    problems.add(Source(printable(path), 1), f"cannot be read: {why}", hint)
    problems.lose_all()
