"""What is wrong with a configuration, and where: every error of every file, collected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from zerohop.errors import ZerohopError


class Source(NamedTuple):
    """A place in a file: line and column count from 1, columns in characters."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One error; `hint` says what to write instead."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: {self.message}"
        return f"{where} ({self.hint})" if self.hint else where


class ConfigurationError(ZerohopError):
    """A configuration that is not valid: `errors` in the order of files, lines and columns, never empty.

    `objects` counts the objects that were found, valid or not.
    """

    def __init__(self, errors: Sequence[ConfigError], *, objects: int = 0) -> None:
        self.errors = list(errors)
        self.objects = objects
        lines = [f"the configuration has {counted(len(self.errors), 'error')}"]
        for each in self.errors:
            lines.append(f"  {each.file}:{each.line}:{each.column}: {each.message}")
            if each.hint:
                lines.append(f"    fix: {each.hint}")
        super().__init__("\n".join(lines))


@dataclass
class Problems:
    """Collects errors while files are read.

    `lost` holds the kinds (and `ServicePort`, `EndpointPort`) of which one could not be read well enough to be referred
    to: a reference that dangles for that reason only is not reported as well.
    """

    errors: list[ConfigError] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def lose_all(self) -> None:
        """Something of unknown kind could not be read."""
        self.lost.update(("Workload", "Service", "EndpointSlice"))

    def add(self, source: Source, message: str, hint: str | None = None) -> None:
        self.errors.append(ConfigError(source.file, source.line, source.column, message, hint))


def counted(number: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shown(value: str, limit: int = 60) -> str:
    """A value from a file as a message may print it: quoted, escaped, not endless."""
    return repr(value if len(value) <= limit else value[: limit - 1] + "…")


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that looks most like `word`, whatever the case of letters; None if none does."""
    if len(word) > 253:  # no name is longer, and difflib's cost grows with the square of the length
        return None
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def suggest(word: str, candidates: Iterable[str], noun: str) -> str:
    """A hint: the nearest of the candidates, else what there is."""
    known = sorted({str(candidate) for candidate in candidates})
    near = nearest(word, known)
    if near is not None:
        return f"did you mean {near!r}?"
    if not known:
        return f"there is no {noun}"
    listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"known: {listed}"
