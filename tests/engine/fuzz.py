"""Fuzzes the engine: `python tests/engine/fuzz.py --seconds 600 [--keep]`.

With a clang that has libFuzzer it looks for new inputs, starting from tests/engine/corpus; else it replays that corpus
with what the ziglang wheel can check. `--keep` adds to the corpus what reaches code that it does not reach yet. An
input that fails stays in the current directory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"

# Longer inputs find no more, and are slow.
MAX_LENGTH = 4096
MAX_KEPT_LENGTH = 400


def replay(program: Path, *, libfuzzer: bool) -> None:
    """Runs every input of the corpus; raises `CalledProcessError` when one fails."""
    inputs = sorted(CORPUS.iterdir())
    subprocess.run([program, *(["-runs=1"] if libfuzzer else []), *inputs], check=True, capture_output=True, text=True)


def fuzz(program: Path, found: Path, seconds: int) -> None:
    """Looks for new inputs, which go to `found`; raises `CalledProcessError` when one fails."""
    limits = [f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", "-verbosity=0", "-print_final_stats=1"]
    subprocess.run([program, *limits, found, CORPUS], check=True)


def keep(program: Path, found: Path) -> None:
    subprocess.run([program, "-set_cover_merge=1", f"-max_len={MAX_KEPT_LENGTH}", CORPUS, found], check=True)


def main() -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from engine import build

    parser = argparse.ArgumentParser(description="Fuzzes the engine.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="add to the corpus what reaches more")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zerohop-fuzz-") as folder:
        program, what = build.fuzzer(Path(folder))
        print(what, flush=True)
        try:
            replay(program, libfuzzer=program.name == build.FUZZER)
            print(f"replayed {len(list(CORPUS.iterdir()))} inputs", flush=True)
            if program.name == build.FUZZER:
                found = Path(folder) / "found"
                found.mkdir()
                fuzz(program, found, arguments.seconds)
                if arguments.keep:
                    keep(program, found)
        except subprocess.CalledProcessError as error:
            print(error.stderr or error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
