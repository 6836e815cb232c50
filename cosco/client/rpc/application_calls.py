"""The calls of applications, which `cosco.client.rpc.metadata_client` makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from cosco.protocol import wire
from cosco.protocol.application_records import ApplicationAnswer, ApplicationCall
from cosco.protocol.wire import mpb


class ApplicationCalls(ABC):
    """A part of `MetadataClient`, which says what every method raises."""

    @abstractmethod
    def _call(self, method: str, request: Any, *, wait_s: float = 0.0) -> Any:
        """Make a call, and return its reply."""

    @abstractmethod
    def _close(self, method: str, request: Any) -> None:
        """Make a call that closes something, which may have gone with its service."""

    def create_application(self, name: str, owner: bytes, lease_s: float) -> str:
        """Make an application, whose label is `name`, and return its id."""
        request = mpb.CreateApplicationRequest(name=name, owner=owner, lease_s=lease_s)
        return str(self._call("CreateApplication", request).application_id)

    def poll_application(
        self,
        application_id: str,
        owner: bytes,
        *,
        wait_s: float,
        answers: Iterable[ApplicationAnswer] = (),
    ) -> tuple[ApplicationCall, ...]:
        """Renew the lease of all exchanges of an application, answer earlier calls, get others."""
        request = mpb.PollApplicationRequest(
            application_id=application_id,
            owner=owner,
            wait_s=wait_s,
            answers=map(wire.to_pb, answers),
        )
        reply = self._call("PollApplication", request, wait_s=wait_s)
        return tuple(wire.from_pb(ApplicationCall, call) for call in reply.calls)

    def close_application(self, application_id: str, owner: bytes) -> None:
        """Close an application and all exchanges of it; harmless if it is closed."""
        request = mpb.CloseApplicationRequest(application_id=application_id, owner=owner)
        self._close("CloseApplication", request)
