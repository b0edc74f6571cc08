"""The highest totals that were ever read from a data path, so that no reading is below an earlier one.

A total is what closed connections left in the counters plus what a walk finds at the open ones. The counters are read
first: an end that closes between is in neither, and missing from this one reading; the other way round it would be in
both. So a reading is at most too low, by what closed within about a millisecond, and the highest yet is nearer to the
truth; while no connection closes, a reading is exact.

What remains: an end whose close is under way on another CPU, counted but not yet marked closed, while counters and walk
are both read. That is a few instructions against two system calls.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Final

from zerohop.kernel import libbpf
from zerohop.kernel.datapath import DataPath

RUN: Final = Path("/run/zerohop")
_NAME: Final = "totals.json"


def highest(path: DataPath, totals: dict[str, int]) -> dict[str, int]:
    """`totals`, each raised to the highest that was read from this data path. The caller holds `path.exclusive()`.

    An instance whose folder under /run is not there (no agent has run since the start of the machine) has no memory.
    """
    folder = RUN / path.folder.name
    # Ids are not used twice soon: another build's data path, or one made anew, begins at zero.
    identity = libbpf.map_info(path.maps["counters"].fd).id
    known = _read(folder / _NAME, identity)
    raised = {name: max(value, known.get(name, 0)) for name, value in totals.items()}
    if raised != known:
        partial = folder / f"{_NAME}.partial"
        with contextlib.suppress(FileNotFoundError):
            partial.write_text(json.dumps({"data_path": identity, "totals": raised}))
            os.rename(partial, folder / _NAME)
    return raised


def _read(file: Path, identity: int) -> dict[str, int]:
    try:
        content = json.loads(file.read_text())
        totals: dict[str, int] = content["totals"] if content["data_path"] == identity else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return totals


def forget(instance: str) -> None:
    """Removes an instance's memory."""
    for name in (_NAME, f"{_NAME}.partial"):
        (RUN / instance / name).unlink(missing_ok=True)
