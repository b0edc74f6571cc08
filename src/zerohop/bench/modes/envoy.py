"""Mode `envoy`: the programs of `direct`, and an Envoy before the server that judges by the same rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from zerohop.bench.account import HookCost
from zerohop.bench.envoy import command, configuration, require_envoy
from zerohop.bench.modes.base import Carried, Judged, Mode, Setting, TooMuchError
from zerohop.bench.modes.direct import open_direct
from zerohop.bench.network import own_namespace
from zerohop.bench.placement import Role
from zerohop.bench.programs import Program
from zerohop.bench.rules import Rule
from zerohop.bench.sockets import wait_listening
from zerohop.bench.stage import Front, Stage
from zerohop.bench.topology import CLIENT_ADDRESSES, SERVER_ADDRESSES
from zerohop.bench.workloads.base import JudgedWorkload
from zerohop.errors import ZerohopError

# Envoy takes rules one by one, at every call: with more of them than it can take, nothing could be measured.
VERIFIED_CALLS: Final = 500
VERIFY_SECONDS: Final = 5.0
_LOAD_SECONDS: Final = 60.0


class Envoy:
    """Every run starts one of its own, with the rules of the case that was loaded last."""

    def __init__(self, setting: Setting, programs: Mode, envoy: str) -> None:
        self._setting = setting
        self._programs = programs
        self._envoy = envoy
        self._rules: list[Rule] = []
        self._loaded: tuple[str, float] | None = None

    def load(self, case: str) -> float | None:
        workload = self._setting.workload
        if not isinstance(workload, JudgedWorkload):
            return None
        if self._loaded is None or self._loaded[0] != case:
            self._rules = list(workload.rules(case))
            self._loaded = case, self._time_to_load()
        return self._loaded[1]

    def _time_to_load(self) -> float:
        command = self._command(SERVER_ADDRESSES[0])
        begin = time.monotonic()
        with own_namespace() as namespace:
            program = Program("envoy", command, namespace=namespace, cpus=None)
            try:
                wait_listening(program, self._setting.front_port, begin + _LOAD_SECONDS)
            except ZerohopError as error:
                raise TooMuchError(f"{len(self._rules):,} rules: {error.message}") from error
            finally:
                program.stop()
        return time.monotonic() - begin

    def _command(self, address: str) -> list[str]:
        setting = self._setting
        client = CLIENT_ADDRESSES[SERVER_ADDRESSES.index(address)]
        file = setting.scratch / f"envoy-{setting.front_port}.json"
        text = configuration(self._rules, client, address, setting.front_port, setting.port)
        file.write_text(text, encoding="utf-8")
        return command(self._envoy, file)

    def enter(self, role: Role, command: Sequence[str]) -> list[str]:
        return self._programs.enter(role, command)

    @contextmanager
    def before(self, stage: Stage, server: Program) -> Iterator[Front]:
        # Where the server is, as a sidecar would be.
        with stage.start("server", self._command(stage.address)) as envoy:
            wait_listening(envoy, self._setting.front_port, time.monotonic() + _LOAD_SECONDS)
            yield Front(envoy, self._setting.front_port)
            envoy.require_running()

    def evidence(self, operations: int = 0) -> Carried | None:
        return None

    def verify(self, make_calls: Callable[[int], None], judged: Judged | None = None) -> None:
        begin = time.monotonic()
        failure = None
        try:
            make_calls(VERIFIED_CALLS)
        except ZerohopError as error:
            failure = error
        seconds = time.monotonic() - begin - (self._loaded[1] if self._loaded else 0.0)
        if seconds > VERIFY_SECONDS:
            how = "did not end within" if failure else "took"
            raise TooMuchError(f"{len(self._rules):,} rules: {VERIFIED_CALLS} calls {how} {seconds:.0f} s")
        if failure:
            raise failure
        if judged is not None:
            judged.make_forbidden(1)

    def hook_cost(self, make_calls: Callable[[int], None]) -> HookCost | None:
        return None


@contextmanager
def open_envoy(setting: Setting) -> Iterator[Envoy]:
    with open_direct(setting, name="envoy", filtered=False) as programs:
        yield Envoy(setting, programs, require_envoy())
