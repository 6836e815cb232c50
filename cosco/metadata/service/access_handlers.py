"""The calls about capabilities: messages in, one call of the state, messages out."""

from __future__ import annotations

import time

from cosco.errors import InvalidArgument
from cosco.metadata.service.guard import Visit
from cosco.metadata.state.state import MetadataState
from cosco.metadata.store.database import Database
from cosco.protocol import wire
from cosco.protocol.wire import mpb


class AccessHandlers:
    """Handlers as those of `cosco.metadata.service.handlers`, which finds them here."""

    def __init__(self, state: MetadataState, database: Database) -> None:
        self._state = state
        self._database = database

    async def make_capability(
        self, request: mpb.MakeCapabilityRequest, visit: Visit
    ) -> mpb.MakeCapabilityReply:
        limits, group_id = wire.limits_of(request), request.group_id
        if group_id and request.number:
            raise InvalidArgument("an exchange and a group are named, a capability is of one")
        access = self._state.access
        if not group_id:
            capability = access.capability(request.number, limits, time.time())
        else:
            knows = self._state.groups.knows(group_id)
            used = not knows and await self._database.was_group(group_id)
            visit.check()
            capability = access.capability_of_part(
                group_id, request.first, limits, time.time(), used=used
            )
        return mpb.MakeCapabilityReply(capability=capability)
