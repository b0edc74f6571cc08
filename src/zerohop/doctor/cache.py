"""Remembers a good answer for as long as the kernel runs and the build stays: a restarted agent is ready at once.

Only a good one: what was broken or unknown is looked at again at each start.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final

from zerohop.agent.lock import RUN
from zerohop.doctor.checks import Check, Effect, Result, verdict

FILE: Final = "doctor.json"  # in the instance's folder under /run/zerohop
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def recall(instance: str, build: bytes) -> list[Check] | None:
    """The checks of an earlier examination of this very boot and build (SHA-256 of the object), or None."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content: dict[str, Any] = json.loads((RUN / instance / FILE).read_text())
        if content["key"] == _key(build):
            return [
                Check(
                    each["name"],
                    Result(each["result"]),
                    each["detail"],
                    each["consequence"],
                    Effect(each["effect"]),
                )
                for each in content["checks"]
            ]
    return None


def remember(instance: str, build: bytes, checks: list[Check]) -> None:
    """Writes a good answer; a folder that cannot be written only costs the next start its time."""
    if verdict(checks) != "ok":
        return
    content = {"key": _key(build), "checks": [{**each.as_json(), "effect": each.effect.value} for each in checks]}
    folder = RUN / instance
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{FILE}.new"
        fresh.write_text(json.dumps(content))
        os.replace(fresh, folder / FILE)


def forget(instance: str) -> None:
    """Removes what `remember` wrote."""
    with contextlib.suppress(OSError):
        os.unlink(RUN / instance / FILE)


def _key(build: bytes) -> list[str]:
    return [_BOOT_ID.read_text().strip(), build.hex()]
