"""Whether this kernel does what the short-cut rests on: feature probes, and experiments with the real programs."""

from __future__ import annotations

from zerohop.doctor.checks import Check, Effect, Result, Verdict, is_ok, verdict

__all__ = ["Check", "Effect", "Result", "Verdict", "examine", "is_ok", "quick", "verdict", "whole"]


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
