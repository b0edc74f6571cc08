"""Whether this kernel does what the short-cut rests on: feature probes, and experiments with the real programs."""

from __future__ import annotations

import logging

from zerohop.doctor.checks import Check, Effect, Result, Verdict, is_ok, verdict
from zerohop.errors import UnsupportedError

__all__ = ["Check", "Effect", "Result", "Verdict", "examine", "is_ok", "quick", "shortcut_works", "verdict", "whole"]

log = logging.getLogger("zerohop")


def whole() -> list[Check]:
    """Every probe and every experiment; takes a few seconds, needs root for most."""
    from zerohop.doctor import examination

    return examination.whole()


def quick() -> list[Check]:
    """The essential ones, in well under a second and a half: can it load, and are bytes safe past TCP."""
    from zerohop.doctor import examination

    return examination.quick()


def examine(instance: str) -> list[Check]:
    """`quick`, or its answer from an earlier start of this instance on the same boot with the same build."""
    from zerohop.doctor import cache
    from zerohop.kernel.datapath import build_of, object_path

    build = build_of(object_path())
    checks = cache.recall(instance, build)
    if checks is None:
        checks = quick()
        cache.remember(instance, build, checks)
    return checks


def shortcut_works(instance: str) -> bool:
    """Whether this kernel's short-cut is safe to use, by `examine`; logs what is not ok.

    Raises `UnsupportedError` where the programs cannot even be loaded.
    """
    checks = examine(instance)
    answer = verdict(checks)
    for each in checks:
        if each.result is Result.OK or answer == "ok":
            continue
        if answer == "refuse" and each.effect is Effect.REFUSE and each.result is Result.BROKEN:
            raise UnsupportedError(f"this kernel fails the check {each.name}: {each.detail}", hint=each.consequence)
        log.warning("doctor: %s is %s: %s", each.name, each.result.value, each.detail)
    if answer == "no-shortcut":
        log.warning("no short-cut on this kernel: every connection stays plain TCP; see zerohop doctor")
    return answer == "ok"
