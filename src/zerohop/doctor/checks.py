"""What doctor says: one answer per check, and what all of them together mean."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "no-shortcut", "refuse"]


class Result(enum.StrEnum):
    """`UNKNOWN`: the check itself could not be done, which says nothing about the kernel."""

    OK = "ok"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Effect(enum.StrEnum):
    """What a check that is not `ok` takes away."""

    REFUSE = "refuse"  # nothing can be loaded: `run` cannot work
    NO_SHORTCUT = "no-shortcut"  # bytes are not safe past TCP: everything stays plain TCP
    DEGRADES = "degrades"  # something is slower or less comfortable; bytes are safe


class Broken(Exception):  # noqa: N818 - an answer, not an error
    """Raised by an experiment: the kernel did what the short-cut cannot live with."""


class Unknown(Exception):  # noqa: N818
    """Raised by an experiment: it could not be done here."""


@dataclass(frozen=True)
class Check:
    """`detail`: what was seen, with numbers. `consequence`: what degrades and what to do; empty when ok."""

    name: str
    result: Result
    detail: str
    consequence: str
    effect: Effect

    def as_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "result": self.result.value,
            "detail": self.detail,
            "consequence": self.consequence,
        }


@dataclass(frozen=True)
class Subject:
    """A check before it is done: its name, and what follows when it fails."""

    name: str
    effect: Effect
    consequence: str

    def ok(self, detail: str) -> Check:
        return Check(self.name, Result.OK, detail, "", self.effect)

    def broken(self, detail: str) -> Check:
        return Check(self.name, Result.BROKEN, detail, self.consequence, self.effect)

    def unknown(self, detail: str) -> Check:
        return Check(self.name, Result.UNKNOWN, detail, f"if it is broken: {self.consequence}", self.effect)

    def skipped(self, missing: str) -> Check:
        return Check(self.name, Result.UNKNOWN, f"not tried: {missing}", "repair what is broken first", self.effect)


def is_ok(checks: Iterable[Check]) -> bool:
    """Nothing is broken that matters: what only degrades does not."""
    return not any(each.result is Result.BROKEN and each.effect is not Effect.DEGRADES for each in checks)


def verdict(checks: Iterable[Check]) -> Verdict:
    """What `run` may do: everything, everything but the short-cut, or nothing.

    An experiment that could not be done proves nothing, so it costs the short-cut: bytes come before speed.
    """
    given = list(checks)
    if any(each.result is Result.BROKEN and each.effect is Effect.REFUSE for each in given):
        return "refuse"
    if any(each.result is not Result.OK and each.effect is Effect.NO_SHORTCUT for each in given):
        return "no-shortcut"
    return "ok"
