"""Progress on stderr: a bar on a terminal, one line per cell elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zerohop.bench.plan import Cell, Plan
from zerohop.bench.runner import CellResult


class BenchProgress:
    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._started = 0
        self._cells = 0
        # No refresh thread: the bench forks, and threads and forks do not go together.
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=plan.runs)

    def preparing(self, what: str) -> None:
        self._bar.update(self._task, description=what, refresh=True)

    def run_started(self, cell: Cell, mode: str, number: int) -> None:
        self._bar.update(self._task, completed=self._started, description=f"{cell} {mode}", refresh=True)
        self._started += 1

    def cell_done(self, result: CellResult) -> None:
        self._cells += 1
        if not self._console.is_terminal:
            self._console.print(f"[{self._cells}/{len(self._plan.cells)}] {result.cell}", markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
