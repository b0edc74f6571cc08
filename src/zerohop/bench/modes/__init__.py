"""The modes that a bench compares: how a program is started, and the evidence that the mode was real."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from zerohop.bench.modes.base import Mode, Setting
from zerohop.bench.modes.direct import open_direct
from zerohop.bench.modes.envoy import open_envoy
from zerohop.bench.modes.zerohop import open_zerohop

Opener = Callable[[Setting], AbstractContextManager[Mode]]

MODES: Final[dict[str, Opener]] = {
    "direct": partial(open_direct, name="direct", filtered=False),
    "zerohop": partial(open_zerohop, name="zerohop", engine=True),
}
"""Nothing of zerohop, and all of it."""

LAYERS: Final[dict[str, Opener]] = {
    "filtered": partial(open_direct, name="filtered", filtered=True),
    "shortcut": partial(open_zerohop, name="shortcut", engine=False),
    "engine": partial(open_zerohop, name="engine", engine=True),
    "policy": partial(open_zerohop, name="policy", engine=True, policy=True),
}
"""One layer more in each."""

RIVALS: Final[dict[str, Opener]] = {"envoy": open_envoy}
"""What judges calls without zerohop."""

ALL_MODES: Final = MODES | LAYERS | RIVALS

BASELINE: Final = "direct"
"""The mode that ratios are taken over."""

UNMANAGED: Final = (BASELINE, "filtered", *RIVALS)
"""Modes without hooks."""

WITHOUT_ENGINE: Final = "shortcut"
"""The mode over which the engine's cost is stated."""
