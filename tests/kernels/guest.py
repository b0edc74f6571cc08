"""Inside the virtual machine: tries the data path on the kernel that runs, and writes down what happened.

guest.py FOLDER     FOLDER/result.json is written after each step, so that a kernel that dies tells where
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import calls
import ktls
import traffic

from zerohop import doctor
from zerohop.kernel import cgroup, libbpf, lifecycle, mounts, pins

INSTANCE = "kernels"
DOCTOR_SECONDS = 300
EXPERIMENT_SECONDS = 60.0  # emulation is some twenty times slower: what is slow here does not hang
TOOL_SECONDS = 20.0
CALLS_INSTANCE = "kernels-calls"
TLS_INSTANCE = "kernels-tls"
MODULES = ("tls", "veth", "nf_tables", "nft_chain_nat", "nft_nat")
RUN_SECONDS = 60
FREE_SECONDS = 10.0  # the kernel frees what nobody holds after a while


class Report:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "result.json"
        self.content: dict[str, Any] = {"release": platform.release(), "step": "start"}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """An exception is this step's answer, not the end of the rest."""
        self.content["step"] = name
        self.write()
        try:
            yield
        except Exception:
            self.content[name] = {"failed": traceback.format_exc()}
        self.write()

    def note(self, where: str) -> None:
        """Where in the step it is."""
        self.content["step"] = where
        self.write()

    def write(self) -> None:
        self._file.write_text(json.dumps(self.content, indent=2))


def mount_what_is_missing() -> None:
    for kind, where in (("cgroup2", "/sys/fs/cgroup"), ("bpf", "/sys/fs/bpf")):
        mounts.find.cache_clear()
        if mounts.find(kind) is None:
            subprocess.run(["mount", "-t", kind, "none", where], check=True)
    mounts.find.cache_clear()


def bpf_objects() -> dict[str, set[int]]:
    """Ids of everything that the kernel's BPF holds; nobody else uses it here."""
    found: dict[str, set[int]] = {}
    for kind in ("prog", "map", "link"):
        following = ctypes.c_uint32(0)
        found[kind] = set()
        while getattr(libbpf.library(), f"bpf_{kind}_get_next_id")(following, ctypes.byref(following)) == 0:
            found[kind].add(following.value)
    return found


def left_behind(before: dict[str, set[int]]) -> list[str]:
    deadline = time.monotonic() + FREE_SECONDS
    while True:
        now = bpf_objects()
        left = [f"{kind} {number}" for kind in now for number in sorted(now[kind] - before[kind])]
        left += [str(each) for each in (pins.root(), cgroup.mount_point() / cgroup.ROOT_NAME) if each.exists()]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def be_patient() -> None:
    from zerohop.doctor import examination, scene

    examination._SECONDS = EXPERIMENT_SECONDS  # type: ignore[misc]
    scene.PATIENCE_SECONDS = TOOL_SECONDS  # type: ignore[attr-defined]


def load_and_try(report: Report) -> None:
    report.content["load"] = {"ok": False}
    with report.step("load"):
        try:
            path, _ = lifecycle.obtain(INSTANCE)
        except libbpf.BpfError as error:
            report.content["load"]["error"] = error.message
            return
        counts = {name: libbpf.program_info(fd).verified_insns for name, fd in path.programs.items()}
        report.content["load"] = {"ok": True, "instructions": counts}
        with path, report.step("traffic"):
            settings = path.settings()
            settings.shortcut = doctor.verdict(doctor.quick()) == "ok"  # as the agent decides
            path.write_settings(settings)
            report.content["shortcut"] = bool(settings.shortcut)
            traffic.manage(path, INSTANCE)
            report.content["traffic"] = traffic.check(path, INSTANCE, report.note).as_json()


def make_calls(report: Report) -> None:
    with report.step("calls"):
        report.content["calls"] = calls.check(CALLS_INSTANCE)


def turn_to_tls(report: Report) -> None:
    with report.step("tls"):
        report.content["tls"] = ktls.check(TLS_INSTANCE)


def zerohop(*arguments: str, seconds: float) -> dict[str, Any]:
    try:
        result = subprocess.run(
            [sys.executable, __file__, "zerohop", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        return {"status": None, "stdout": str(error.stdout), "stderr": f"did not end in {seconds:.0f} s"}
    return {"status": result.returncode, "stdout": result.stdout, "stderr": result.stderr}


def examine(report: Report) -> None:
    with report.step("doctor"):
        answer = zerohop("doctor", "--json", seconds=DOCTOR_SECONDS)
        try:
            report.content["doctor"] = {"status": answer["status"], **json.loads(answer["stdout"])}
        except ValueError:
            report.content["doctor"] = answer


def refused(report: Report, folder: Path) -> None:
    """What a person sees who starts zerohop on a kernel that is too old."""
    with report.step("run"):
        config = folder / "config.yaml"
        config.write_text(
            "apiVersion: zerohop.io/v1alpha1\nkind: Workload\nmetadata: {name: web, namespace: shop}\nspec: {}\n"
        )
        report.content["run"] = zerohop("run", "-c", str(config), "--metrics", "off", seconds=RUN_SECONDS)


def main(folder: Path) -> None:
    os.environ["ZEROHOP_VERIFIER_LOG"] = str(folder / "verifier.log")
    report = Report(folder)
    mount_what_is_missing()
    before = bpf_objects()
    load_and_try(report)
    subprocess.run(["modprobe", "--all", *MODULES], capture_output=True)
    if report.content.get("shortcut"):
        make_calls(report)
        turn_to_tls(report)
    examine(report)
    if not report.content["load"]["ok"]:
        refused(report, folder)
    with report.step("left"):
        report.content["left"] = left_behind(before)
    report.content["step"] = "done"
    report.write()


if __name__ == "__main__":
    be_patient()
    if sys.argv[1] == "zerohop":
        from zerohop.cli.main import main as command_line

        command_line(sys.argv[2:])
    else:
        main(Path(sys.argv[2]))
