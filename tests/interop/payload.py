"""The files that HTTP peers hand around, and their checksums."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

SIZES = {"tiny": 1, "small": 1_000, "medium": 100_003, "large": 8_000_009, "huge": 50_000_017}
SUMS = "sums.json"


def write(folder: Path) -> dict[str, str]:
    """Makes the files; their SHA-256 by name, which peers read from `sums.json`."""
    chance = random.Random(4)
    sums = {}
    for name, size in SIZES.items():
        content = chance.randbytes(size)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
    (folder / SUMS).write_text(json.dumps(sums))
    return sums
