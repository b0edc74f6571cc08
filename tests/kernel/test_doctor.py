"""doctor on a real kernel: everything ok with the package's object, broken with builds that break a rule."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from zerohop.doctor import Check, Result, cache, examine, quick, shortcut_works, verdict
from zerohop.doctor.experiments import EXPERIMENTS
from zerohop.errors import UnsupportedError
from zerohop.kernel import cgroup, pins

pytestmark = pytest.mark.usefixtures("kernel")

COMMAND = [sys.executable, "-P", "-m", "zerohop", "doctor"]


def traces(of: str = "*") -> list[Path]:
    """What doctors, or that of a process, have made: cgroups and pins (namespaces and programs have no names)."""
    return [*cgroup.absolute(cgroup.ROOT_NAME).glob(f"doctor-{of}-*"), *pins.root().glob(f"_doctor-{of}-*")]


def leftovers() -> list[Path]:
    """What doctors have left that have ended, and this process's. Somebody else's may be at work."""
    found = {each: int(each.name.split("-")[1]) for each in traces()}
    return [each for each, pid in found.items() if pid == os.getpid() or not Path("/proc", str(pid)).exists()]


def test_everything_is_ok_here() -> None:
    begun = time.monotonic()
    result = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    answer = json.loads(result.stdout)
    assert answer.keys() == {"ok", "checks"}
    assert answer["ok"] is True
    for check in answer["checks"]:
        assert check.keys() == {"name", "result", "detail", "consequence"}
        # `ip` or `nft` may be missing; nothing else may keep an experiment from an answer.
        assert check["result"] == "ok" or (check["result"], check["name"]) in {
            ("unknown", "veth"),
            ("unknown", "dnat"),
        }, check
    assert {each.subject.name for each in EXPERIMENTS} <= {check["name"] for check in answer["checks"]}
    assert time.monotonic() - begun < 30  # about 2 s; CI machines are slow
    assert leftovers() == []


def results(define: str, variant: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    monkeypatch.setenv("ZEROHOP_OBJECT", str(variant(define)))
    return {check.name: check for check in quick()}


@pytest.mark.parametrize(
    ("define", "broken"),
    [
        ("ZH_BREAK_ACKED", {"order"}),
        ("ZH_BREAK_QUEUED", {"order", "early-data"}),
        ("ZH_BREAK_ROOM", {"back-pressure"}),
        ("ZH_BREAK_OVERLAP", {"overlap"}),
    ],
)
def test_a_removed_condition_is_broken(
    define: str, broken: set[str], variant: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = results(define, variant, monkeypatch)
    assert {name for name, check in checks.items() if check.result is Result.BROKEN} == broken
    assert verdict(checks.values()) == "no-shortcut"
    assert all(checks[name].consequence for name in broken)


def test_an_object_that_the_kernel_refuses(variant: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    checks = results("ZH_BREAK_VERIFIER", variant, monkeypatch)
    assert checks["object"].result is Result.BROKEN
    assert "infinite loop" in checks["object"].detail
    assert checks["order"].result is Result.UNKNOWN
    assert verdict(checks.values()) == "refuse"
    assert leftovers() == []


def test_what_run_does_with_the_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variant: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(cache, "RUN", tmp_path)
    assert shortcut_works("t-doctor") is True
    monkeypatch.setenv("ZEROHOP_OBJECT", str(variant("ZH_BREAK_ACKED")))
    assert shortcut_works("t-doctor") is False
    monkeypatch.setenv("ZEROHOP_OBJECT", str(variant("ZH_BREAK_VERIFIER")))
    with pytest.raises(UnsupportedError, match="fails the check object"):
        shortcut_works("t-doctor")


def test_exit_status_and_table_of_a_broken_build(variant: Callable[[str], Path]) -> None:
    environment = {**os.environ, "ZEROHOP_OBJECT": str(variant("ZH_BREAK_ACKED"))}
    result = subprocess.run([*COMMAND, "--quick"], capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 1
    assert "without the short-cut" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_good_answer_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache, "RUN", tmp_path)
    first = examine("t-doctor")
    assert verdict(first) == "ok", first
    begun = time.monotonic()
    assert examine("t-doctor") == first
    assert time.monotonic() - begun < 0.1


def test_a_good_answer_is_not_another_builds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variant: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(cache, "RUN", tmp_path)
    assert verdict(examine("t-doctor")) == "ok"
    monkeypatch.setenv("ZEROHOP_OBJECT", str(variant("ZH_BREAK_QUEUED")))
    assert verdict(examine("t-doctor")) == "no-shortcut"


def test_without_root() -> None:
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-P", "-c", "import zerohop.cli.doctor"], check=True, timeout=60, **nobody)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("this Python or the package lies where only root may read")
    result = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, timeout=60, **nobody)
    assert result.returncode == 1
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    root = answer["checks"][0]
    assert (root["name"], root["result"]) == ("root", "broken")
    assert "sudo zerohop" in root["consequence"]


def heed_signals() -> None:
    """A background job of a shell without job control ignores SIGINT, and so would its children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("seconds", [0.2, 0.3, 0.4, 0.6])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_doctor_leaves_nothing(number: signal.Signals, seconds: float) -> None:
    process = subprocess.Popen(
        COMMAND,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    time.sleep(seconds)
    process.send_signal(number)
    assert process.wait(timeout=30) != 0
    assert leftovers() == []


def test_what_a_killed_doctor_leaves_is_taken_away_by_the_next() -> None:
    process = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not traces(str(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert verdict(quick()) == "ok"
    assert leftovers() == []
