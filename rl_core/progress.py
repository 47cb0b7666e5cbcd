"""One look for every progress bar: what, how far, how fast, how long still."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# of several processes the first one speaks
console = Console(stderr=True, highlight=False, quiet=os.environ.get("RANK", "0") != "0")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Items per second of the recent past."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="progress.data.speed")


def bar() -> Progress:
    """Return a progress display; use it as `with bar() as progress: progress.add_task(name, total=n)`."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextmanager
def counting(name: str, total: int, *, after: float = 2.0) -> Iterator[Callable[[int], None]]:
    """Yield a function to be told how much is done; a bar shows when the work takes over `after` seconds."""
    start = time.monotonic()
    progress = bar()
    task = progress.add_task(name, total=total, note="")

    def done(completed: int) -> None:
        if progress.live.is_started:
            progress.update(task, completed=completed)
        elif time.monotonic() - start > after:
            progress.start()

    try:
        yield done
    finally:
        if progress.live.is_started:
            progress.stop()
