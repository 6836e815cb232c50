"""What each part of a daemon that runs tasks of its own has in common."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskRunner:
    """Runs tasks, none of which ever ends by itself; `start` to `stop` once."""

    def __init__(self) -> None:
        #: For the server to watch.
        self.tasks: list[asyncio.Task[None]] = []

    def run(self, name: str, task: Coroutine[Any, Any, None]) -> None:
        """Begin a task."""
        self.tasks.append(asyncio.create_task(task, name=name))

    async def stop(self) -> None:
        """End all tasks."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
