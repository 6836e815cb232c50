"""The parts of a service that what is beside its calls shows."""

from __future__ import annotations

from dataclasses import dataclass

from cosco.metadata.service.guard import Guard
from cosco.metadata.service.handlers import Handlers
from cosco.metadata.service.polls import Polls
from cosco.metadata.state.event_history import EventHistory
from cosco.metadata.state.state import MetadataState
from cosco.process.event_writer import EventWriter


@dataclass(frozen=True, slots=True)
class Behind:
    """The parts of a service that HTTP shows. address: of its calls, host:port."""

    state: MetadataState
    handlers: Handlers
    guard: Guard
    polls: Polls
    events: EventWriter
    history: EventHistory
    address: str
