"""The modes that a bench compares: how a program is started, and the evidence that the mode was real."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from zerohop.bench.modes.base import Mode, Setting
from zerohop.bench.modes.direct import open_direct
from zerohop.bench.modes.zerohop import open_zerohop

MODES: Final[dict[str, Callable[[Setting], AbstractContextManager[Mode]]]] = {
    "direct": open_direct,
    "zerohop": open_zerohop,
}

BASELINE: Final = "direct"
"""The mode that ratios are taken over."""
