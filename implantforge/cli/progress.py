"""What a person sees while a build runs: stages with their time, on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from implantforge.pipeline.cache import Stage


class Progress:
    """Called by the build as on_stage. In a terminal the running stage shows its elapsed time; elsewhere each stage
    that took over a second leaves one line."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import Progress as Live
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._live = Live(
            *columns, console=self._console, transient=True, disable=quiet or not self._console.is_terminal
        )
        self._running: list[tuple[str, Any]] = []
        self._began = time.perf_counter()

    def __enter__(self) -> Progress:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._live.stop()
        if error is None:
            self._console.print(f"{time.perf_counter() - self._began:8.1f} s  in all")

    def __call__(self, name: str, stage: Stage | None) -> None:
        """A stage starts (None) or is done."""
        if stage is None:
            self._running.append((name, self._live.add_task(name, total=None)))
            return
        for row in reversed(self._running):
            if row[0] == name:
                self._running.remove(row)
                self._live.remove_task(row[1])
                break
        if stage.seconds >= 1.0:
            self._console.print(f"{stage.seconds:8.1f} s  {name}")
