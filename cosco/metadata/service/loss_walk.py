"""Finds what other exchanges have lost with a store that a reader of one has found to be gone."""

from __future__ import annotations

import asyncio
import time

from cosco.metadata.service.journal import Journal
from cosco.metadata.service.polls import EXCHANGES_AT_ONCE, Polls
from cosco.metadata.state.state import MetadataState


async def look_for_losses(state: MetadataState, polls: Polls, journal: Journal) -> None:
    """Look through exchanges whenever there are some to be looked through, until cancelled.

    In slices, so that calls come in between; and not while the database takes nothing, as what
    is found changes the state. Whatever a service that dies has not found, readers find.
    """
    lost = state.lost_stores
    while True:
        await polls.losses.wait()
        polls.losses.clear()
        while lost.has_more:
            for _ in range(EXCHANGES_AT_ONCE):
                number = lost.pop_next()
                if number is None:
                    break
                with polls.telling(number):
                    lost.judge(number, time.monotonic())
            polls.changed()
            await journal.durable()
            await asyncio.sleep(0)
