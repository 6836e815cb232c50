"""Copies of what is put, so that a put that hangs keeps nobody's memory but its own."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Sequence
from typing import Final

#: What is copied before others of the event loop have their turn.
_PIECE_BYTES: Final = 1 << 20


class PutCopy:
    """One copy; `view` is page-aligned, and never changes while anybody uses it."""

    def __init__(self, memory: mmap.mmap, length: int) -> None:
        self.memory = memory
        self.view = memoryview(memory)[:length]
        self.users = 0


class PutCopies:
    """Makes copies, and keeps the memory of up to `kept_max` for the next ones."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._kept: list[mmap.mmap] = []

    async def make(self, parts: Sequence[memoryview], length: int) -> PutCopy:
        """Return a copy of the joined parts, with one user."""
        copy = PutCopy(self._memory(length), length)
        copy.users = 1
        try:
            at = 0
            for part in parts:
                with part.cast("B") as data:  # nothing of it stays in use
                    for start in range(0, len(data), _PIECE_BYTES):
                        end = min(start + _PIECE_BYTES, len(data))
                        with data[start:end] as piece:
                            copy.view[at : at + end - start] = piece
                        at += end - start
                        if end - start == _PIECE_BYTES:
                            await asyncio.sleep(0)
        except BaseException:
            self.release(copy)
            raise
        return copy

    def release(self, copy: PutCopy) -> None:
        """Have one user less; without any its memory is for another copy."""
        copy.users -= 1
        if copy.users:
            return
        copy.view.release()
        if len(self._kept) < self._kept_max:
            self._kept.append(copy.memory)
        else:
            copy.memory.close()

    def _memory(self, length: int) -> mmap.mmap:
        fits = [memory for memory in self._kept if len(memory) >= length]
        if fits:
            found = min(fits, key=len)
            self._kept.remove(found)
            return found
        if self._kept:  # too small, and they would be so again
            self._kept.pop(0).close()
        return mmap.mmap(-1, length)
