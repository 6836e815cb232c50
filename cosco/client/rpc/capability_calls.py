"""The calls about capabilities, which `cosco.client.rpc.metadata_client` makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from cosco.protocol.capability import Limits, Rights
from cosco.protocol.wire import mpb


class CapabilityCalls(ABC):
    """A part of `MetadataClient`, which says what every method raises."""

    @abstractmethod
    def _call(self, method: str, request: Any) -> Any:
        """Make a call, and return its reply."""

    def make_capability(
        self, limits: Limits, *, number: int = 0, group_id: str = "", first: int = 0
    ) -> str:
        """Have a capability made of an exchange, or of a part of a group.

        first: the index of the part's first exchange.
        Returns: the capability; empty where the cluster asks for no tokens.
        Raises: AccessDenied without a token of its tenant, ExchangeClosed.
        """
        request = mpb.MakeCapabilityRequest(
            number=number,
            group_id=group_id,
            first=first,
            read=Rights.READ in limits.rights,
            write=Rights.WRITE in limits.rights,
            lives_s=limits.lives_s,
        )
        return str(self._call("MakeCapability", request).capability)
