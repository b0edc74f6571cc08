"""All checks in their order: whole for people, quick for `run`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from zerohop.doctor import child, features
from zerohop.doctor.checks import Check, Effect, Result
from zerohop.doctor.experiments import EXPERIMENTS, Experiment
from zerohop.doctor.laboratory import Laboratory
from zerohop.doctor.scene import Scene

_SECONDS: Final = 12.0  # an experiment takes well under one; this is for a busy machine

Listener = Callable[[Check], None]


def whole(told: Listener = lambda check: None) -> list[Check]:
    """Every probe and experiment; `told` hears each answer as it comes."""
    return _examine(EXPERIMENTS, told, quick=False)


def quick(told: Listener = lambda check: None) -> list[Check]:
    """Whether anything can be loaded, and the experiments that decide about the short-cut, shorter."""
    deciding = tuple(each for each in EXPERIMENTS if each.subject.effect is Effect.NO_SHORTCUT)
    return _examine(deciding, told, quick=True)


def _examine(experiments: tuple[Experiment, ...], told: Listener, *, quick: bool) -> list[Check]:
    checks: list[Check] = []

    def add(*given: Check) -> bool:
        checks.extend(given)
        for each in given:
            told(each)
        return all(each.result is Result.OK for each in given)

    if not add(*features.prerequisites()):
        add(*features.not_loaded())
        _skip(experiments, add)
        return checks
    if not quick:
        add(*features.system_calls())
    with Laboratory() as lab:
        if not add(*features.load(lab)):
            _skip(experiments, add)
            return checks
        for each in experiments:
            if each.leaves and any(check.name == "fionread" and check.result is not Result.OK for check in checks):
                add(each.subject.skipped("fionread is not ok"))
            else:
                add(_play(each, lab, quick=quick))
    return checks


def _play(experiment: Experiment, lab: Laboratory, *, quick: bool) -> Check:
    def play(step: child.Step) -> str:
        return experiment.play(Scene(lab, step, quick=quick))

    return child.run(experiment.subject, play, seconds=_SECONDS)


def _skip(experiments: tuple[Experiment, ...], add: Callable[..., bool]) -> None:
    for each in experiments:
        add(each.subject.skipped("the programs cannot be loaded"))
