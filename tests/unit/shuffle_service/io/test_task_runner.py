"""Parts of a daemon: their tasks end with them."""

from __future__ import annotations

import asyncio

import pytest

from cosco.shuffle_service.io.task_runner import TaskRunner


def test_all_tasks_end_also_those_that_have_failed() -> None:
    async def fail() -> None:
        raise RuntimeError("on purpose")

    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        part = TaskRunner()
        part.run("failing", fail())
        part.run("waiting", wait())
        done, _ = await asyncio.wait(part.tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [task.get_name() for task in done] == ["failing"]
        await part.stop()
        assert all(task.done() for task in part.tasks)
        with pytest.raises(RuntimeError, match="on purpose"):
            await part.tasks[0]
        assert part.tasks[1].cancelled()

    asyncio.run(main())
