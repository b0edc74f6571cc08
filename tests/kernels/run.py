"""Boots other Debian kernels in software emulation and tries zerohop's data path on each.

    python tests/kernels/run.py                          the kernels that zerohop promises, and one that is too old
    python tests/kernels/run.py --kernel 6.12 --kernel 7.2
    python tests/kernels/run.py --list

Per kernel: the object loads (instructions that the verifier walked), real connections are short-cut with every byte
compared, `clean` leaves nothing, and what `zerohop doctor` says. A kernel whose short-cut is not safe has to carry
everything by TCP, one older than the minimum has to be refused clearly. See docs/kernels.md.

Exit status: 0 all as expected, 1 not, 77 cannot run on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import emulator
import packages

# 6.1 is below the minimum; then the two long-term kernels and the newest of all.
DEFAULT = ("6.1", "6.12", "6.18", "7")
MINIMUM = (6, 6)
# From here on a redirected byte does not count as TCP's (`copied_seq`); before, the short-cut loses bytes.
REPAIRED: dict[tuple[int, ...], int] = {(6, 6): 128, (6, 12): 75, (6, 18): 14}
REFUSED, PLAIN, SHORTCUT = "refused", "plain TCP", "short-cut"
SECONDS = 420.0
UNSUPPORTED = 77
GUEST = Path(__file__).with_name("guest.py")
COMPLAINT = re.compile(
    r"\[ *\d+\.\d+\] .*(BUG:|WARNING:|Oops:|Kernel panic|detected stall|blocked for more than)"
)  # the kernel's own
# With more than one CPU, qemu sometimes runs into a jump label that the kernel is just patching: nothing of ours.
EMULATION, BOOTS = "Oops: int3", 3
PROGRAMS = ("sockops", "sender", "receiver", "inspect")


def try_kernel(kernel: packages.Kernel, vng: Path, keep: Path | None) -> dict[str, Any]:
    """Boots it once; returns what the guest wrote, with `expected`, `problems` and `seconds`."""
    with contextlib.ExitStack() as stack:
        if keep is None:
            shared = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zerohop-kernel-")))
        else:
            shared = keep.resolve() / kernel.release
            shutil.rmtree(shared, ignore_errors=True)
            shared.mkdir(parents=True)
        environment = [
            f"{name}={value}" for name, value in os.environ.items() if name in ("PYTHONPATH", "ZEROHOP_OBJECT")
        ]
        command = ["env", *environment, sys.executable, str(GUEST), "try", str(shared)]
        for _ in range(BOOTS):
            (shared / "result.json").unlink(missing_ok=True)
            run = emulator.boot(vng, kernel.image, command, shared, SECONDS)
            console = (shared / "console.log").read_text(errors="replace")
            if EMULATION not in console:
                break
        result: dict[str, Any] = {"release": kernel.release, "step": "boot"}
        with contextlib.suppress(FileNotFoundError, ValueError):
            result = json.loads((shared / "result.json").read_text())
    result["seconds"] = round(run.seconds, 1)
    result["expected"] = expected(kernel.version)
    result["problems"] = problems(kernel, result, console, run.ended)
    return result


def expected(version: tuple[int, ...]) -> list[str]:
    """What zerohop may do there; 6.19 was repaired too, in a release that nobody has seen yet."""
    if version < MINIMUM:
        return [REFUSED]
    if version[:2] == (6, 19):
        return [PLAIN, SHORTCUT]
    repaired = version >= (7,) or version[2] >= REPAIRED.get(version[:2], 1 << 30)
    return [SHORTCUT if repaired else PLAIN]


def outcome(result: dict[str, Any]) -> str:
    if not result.get("load", {}).get("ok"):
        return REFUSED
    return SHORTCUT if result.get("shortcut") else PLAIN


def problems(kernel: packages.Kernel, result: dict[str, Any], console: str, ended: bool) -> list[str]:
    """Everything that is not as it has to be, one line each."""
    found = [line for line in console.splitlines() if COMPLAINT.match(line)]
    if result["step"] != "done":
        reason = "the virtual machine ended" if ended else f"no end within {SECONDS:.0f} s"
        return [*found, f"{reason} at the step {result['step']!r}", *console.splitlines()[-3:]]
    if result["release"] != kernel.release:
        found.append(f"booted {result['release']}, not {kernel.release}")
    found += [f"left behind: {each}" for each in result["left"]]
    for step in ("load", "traffic", "calls", "tls", "doctor", "run", "left"):
        answer = result.get(step)
        if isinstance(answer, dict) and "failed" in answer:
            found.append(f"{step}: {answer['failed']}")
    came = outcome(result)
    if came not in result["expected"]:
        found.append(
            f"{came}, expected {' or '.join(result['expected'])}: {result['load'].get('error', _doctor(result))}"
        )
    return found + (_refusal(result) if came == REFUSED else _service(result))


def _refusal(result: dict[str, Any]) -> list[str]:
    run = result["run"]
    if run.get("status") != UNSUPPORTED or not run.get("stderr") or "Traceback" in run["stderr"]:
        return [f"run is not refused clearly: status {run.get('status')}, {run.get('stderr')}"]
    return []


def _service(result: dict[str, Any]) -> list[str]:
    traffic, doctor = result["traffic"], result["doctor"]
    found = list(traffic.get("problems", []))
    if traffic.get("stayed"):
        found.append(f"{traffic['stayed']} ends did not leave after a one-way transfer")
    for step in ("calls", "tls"):
        found += result.get(step, {}).get("problems", [])
    if "checks" not in doctor:
        found.append(f"doctor: {_doctor(result)}: {doctor.get('stderr')}")
    elif doctor["ok"] is not result["shortcut"] or any(is_unexplained(each) for each in bad_checks(doctor)):
        found += [f"doctor: {each['name']} {each['result']}: {each['detail']}" for each in bad_checks(doctor)]
    return found


def bad_checks(doctor: dict[str, Any]) -> list[dict[str, str]]:
    return [each for each in doctor.get("checks", []) if each["result"] != "ok"]


def is_unexplained(check: dict[str, str]) -> bool:
    """Could not be done, and not because an experiment that fails on this kernel forbids it."""
    return check["result"] == "unknown" and "fionread is not ok" not in check["detail"]


def _doctor(result: dict[str, Any]) -> str:
    doctor = result.get("doctor", {})
    if "checks" not in doctor:
        return f"status {doctor.get('status')}"
    bad = ", ".join(f"{each['name']} {each['result']}" for each in bad_checks(doctor))
    return bad or f"{len(doctor['checks'])} ok"


def _tls(answer: dict[str, Any]) -> str:
    if "failed" in answer:
        return "failed"
    return str(
        answer.get("skipped")
        or f"{answer.get('shortcut_bytes')} bytes past TCP before it, {answer.get('stayed')} of 2 ends stayed at clean"
    )


def print_result(result: dict[str, Any]) -> None:
    """A few lines of at most 80 columns, but for what went wrong."""
    load = result.get("load", {})
    print(f"\n{result['release']}  ({result['seconds']:.0f} s)")
    if load.get("ok"):
        counts = load.get("instructions", {})
        print("  loads    " + ", ".join(f"{name} {counts.get(f'zerohop_{name}')}" for name in PROGRAMS))
    elif "error" in load:
        print(f"  refused  {load['error'].strip().splitlines()[0]}")
        for line in result.get("run", {}).get("stderr", "").splitlines():
            print(f"           {line.strip()}")
    traffic = result.get("traffic", {})
    if "shortcut_bytes" in traffic:
        left = f"; {2 - traffic['stayed']} of 2 ends left" if result["shortcut"] else ""
        print(f"  traffic  {traffic['shortcut_bytes']} bytes past TCP, {traffic['tcp_bytes']} by TCP{left}")
    if calls := result.get("calls"):
        print(f"  calls    {calls.get('calls', 'failed')} read in both hooks")
    if tls := result.get("tls"):
        print(f"  kTLS     {_tls(tls)}")
    if "doctor" in result and load.get("ok"):
        print(f"  doctor   {_doctor(result)}")
    for each in result["problems"]:
        print(f"  PROBLEM  {each}")
    if not result["problems"]:
        print(f"  as expected: {outcome(result)}")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kernel",
        action="append",
        metavar="VERSION",
        help=f"7, 6.12 or 6.12.107: the newest that Debian serves (default: {', '.join(DEFAULT)})",
    )
    parser.add_argument("--list", action="store_true", help="print the kernels that can be had, and end")
    parser.add_argument("--json", action="store_true", help="one JSON array on stdout")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep console, result and verifier's log of each")
    return parser.parse_args()


def unsupported() -> str | None:
    """Why nothing can be tried here, with the fix."""
    if platform.machine() != "x86_64":
        return "needs an x86-64 machine"
    if importlib.util.find_spec("zerohop") is None:
        return "needs zerohop: run make test-kernels, or this with .venv/bin/python"
    missing = emulator.missing_packages()
    return f"needs Debian packages: apt-get install --no-install-recommends {' '.join(missing)}" if missing else None


def chosen(archive: packages.Archive, wanted: list[str] | None) -> list[str]:
    """Whole releases. What is asked for has to be there; of the default ones a mirror may no longer serve some."""
    if wanted:
        return [archive.newest(each) for each in wanted]
    found = []
    for each in DEFAULT:
        try:
            found.append(archive.newest(each))
        except packages.PackageError as error:
            print(f"test-kernels: not tried: {error}", file=sys.stderr)
    return found


def main() -> int:
    options = arguments()
    reason = unsupported()
    if reason:
        print(f"test-kernels: {reason}", file=sys.stderr)
        return UNSUPPORTED
    # A terminated run ends its virtual machine too: SystemExit passes through emulator.boot.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = packages.cache()
    results = []
    try:
        archive = packages.Archive(folder)
        if options.list:
            print("\n".join(archive.releases()))
            return 0
        vng = emulator.virtme(folder)
        releases = chosen(archive, options.kernel)
        for release in dict.fromkeys(releases):
            print(f"test-kernels: {release}", file=sys.stderr)
            result = try_kernel(archive.fetch(release), vng, options.keep)
            results.append(result)
            if not options.json:
                print_result(result)
    except (packages.PackageError, emulator.EmulatorError) as error:
        print(f"test-kernels: {error}", file=sys.stderr)
        return UNSUPPORTED
    if options.json:
        print(json.dumps(results, indent=2))
    return 1 if not results or any(each["problems"] for each in results) else 0


if __name__ == "__main__":
    sys.exit(main())
