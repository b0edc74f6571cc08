"""One run's surroundings: everything a workload needs to start its two programs in their place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from zerohop.bench.placement import Placement, Role
from zerohop.bench.programs import Program
from zerohop.bench.topology import Topology
from zerohop.errors import ZerohopError

# What a run may take beyond its warm-up and measurement before it counts as hung.
SLACK_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Timing:
    """Length of the warm-up and of the measured interval of a run, in seconds."""

    warmup: float
    measured: float

    @property
    def warmup_ms(self) -> int:
        return max(1, round(self.warmup * 1000))

    @property
    def measured_ms(self) -> int:
        return max(1, round(self.measured * 1000))


@dataclass(frozen=True)
class Front:
    """What clients connect to: the server itself, or what a mode has before it."""

    program: Program
    port: int


@contextmanager
def no_front(stage: Stage, server: Program) -> Iterator[Front]:
    """Clients connect to the server itself."""
    yield Front(server, stage.port)


@dataclass
class Stage:
    """The surroundings of a run.

    `enter` turns a program's command into one that runs under the mode, `before` starts what the mode has before the
    server.
    """

    topology: Topology
    placement: Placement
    enter: Callable[[Role, Sequence[str]], list[str]]
    port: int
    timing: Timing
    scratch: Path
    before: Callable[[Stage, Program], AbstractContextManager[Front]] = no_front
    programs: list[Program] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.topology.server_address

    @contextmanager
    def start(
        self, role: Role, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Iterator[Program]:
        """Starts a program as `role`, with `environment` beside the bench's; it has ended when the block is left."""
        program = Program(
            f"{role} ({Path(command[0]).name})",
            self.enter(role, command),
            namespace=self.topology.namespace(role),
            cpus=self.placement.cpus(role),
            environment=environment,
        )
        self.programs.append(program)
        with ExitStack() as stack:
            stack.callback(program.stop)
            try:
                yield program
            except ZerohopError as error:
                message = self._with_other_failures(error)
                if message == error.message:
                    raise
                raise ZerohopError(message, hint=error.hint) from error

    def fronted(self, server: Program) -> AbstractContextManager[Front]:
        """For the block, what clients of `server`, which listens, connect to."""
        return self.before(self, server)

    def halt(self) -> None:
        """Halts all programs: first the client, so that its server has nothing left to do."""
        for program in reversed(self._running()):
            program.halt()

    def resume(self) -> None:
        for program in self._running():
            program.resume()

    def _running(self) -> list[Program]:
        return [program for program in self.programs if program.running]

    def deadline(self) -> float:
        """The monotonic time at which a program started now counts as hung."""
        return time.monotonic() + self.timing.warmup + 2 * self.timing.measured + SLACK_SECONDS

    def _with_other_failures(self, error: ZerohopError) -> str:
        # A client that fails because its server died tells only half of it.
        message = error.message
        for program in self.programs:
            if program.failed and program.name not in message:
                message += f"; {program.describe_failure()}"
        return message
