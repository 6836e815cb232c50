"""What the fuzzer has of its own in a cluster: exchanges to speak of, and an end of all it made."""

from __future__ import annotations

import itertools
from typing import Any, Final

import grpc

from cosco.protocol import wire
from cosco.protocol.records import Assignment, ExchangeSpec
from cosco.protocol.wire import mpb

from .names import FUZZED, HONEST, Daemon, Exchange, Names, Range

COUNT: Final = 4
PARTITIONS: Final = 8
MAPPERS: Final = 4
#: Exchanges and groups that the messages made are closed beyond this many.
_KEPT: Final = 24
#: Honest ones that messages name.
_NAMED: Final = 4
_OWNER: Final = b"the fuzzer's own"
_CALL_S: Final = 30.0


class OwnExchanges:
    """Keeps COUNT exchanges open, whatever messages do to them, by calls as clients make them."""

    def __init__(self, metadata: str) -> None:
        self._channel = grpc.insecure_channel(metadata, (("grpc.enable_http_proxy", 0),))
        self._own: list[Exchange] = []
        self._made = itertools.count()
        #: Names of honest exchanges that are closed by now stay good for questions.
        self._honest: dict[int, str] = {}

    def close(self) -> None:
        self._channel.close()

    def refresh(self) -> Names:
        """Open what is not open any more, and close what is too much."""
        status = self._call("Status", mpb.StatusRequest())
        daemons = tuple(
            Daemon(one.ref.address, one.ref.incarnation, one.store_id)
            for one in status.daemons
            if one.host_id.startswith("host-")
        )
        open_now = {one.number: one.shuffle_id for one in self._list()}
        self._honest |= {n: name for n, name in open_now.items() if name.startswith(HONEST)}
        # A commit that contradicts another one is for ever: so the oldest one goes as well.
        oldest, self._own = self._own[:1], self._own[1:]
        self._own = [one for one in self._own if one.number in open_now]
        while len(self._own) < COUNT:
            self._own.append(self._open(daemons))
        if oldest and oldest[0].number in open_now:
            self._end(oldest[0].shuffle_id)
        mine = {one.number for one in (*self._own, *oldest)}
        others = [n for n in sorted(open_now) if n not in mine and n not in self._honest]
        for number in others[:-_KEPT]:
            self._end(open_now[number])
        made = tuple((number, open_now[number]) for number in others[-_KEPT:])
        # Those that are open, and then those that were closed last.
        latest = sorted(self._honest, key=lambda n: (n not in open_now, -n))[:_NAMED]
        return Names(
            daemons, tuple(self._own), made, tuple(latest), tuple(self._honest[n] for n in latest)
        )

    def _open(self, daemons: tuple[Daemon, ...]) -> Exchange:
        name = f"{FUZZED}own-{next(self._made)}"
        spec = ExchangeSpec(name, PARTITIONS, replicas=2, lease_s=60.0)
        request = mpb.CreateExchangeRequest(spec=wire.to_pb(spec), owner=_OWNER)
        info = self._call("CreateExchange", request)
        attempts = tuple(
            self._call("OpenAttempt", mpb.OpenAttemptRequest(shuffle_id=name, mapper=m)).attempt
            for m in range(MAPPERS)
        )
        primaries = {a.range_index: wire.from_pb(Assignment, a) for a in info.assignments}
        places = [daemon.incarnation for daemon in daemons]
        ranges = []
        for one in info.ranges:
            assigned = primaries[one.index]
            found = assigned.primary.incarnation
            at = places.index(found) if found in places else 0
            ranges.append(Range(one.index, one.first, one.count, assigned.epoch, at))
        return Exchange(info.number, name, _OWNER, PARTITIONS, tuple(ranges), attempts)

    def _list(self) -> list[Any]:
        found: list[Any] = []
        after = 0
        while True:
            page = self._call(
                "ListExchanges",
                mpb.ListExchangesRequest(phase=mpb.EXCHANGE_PHASE_OPEN, after=after, limit=1000),
            )
            found += page.exchanges
            after = page.next
            if not after:
                return found

    def _end(self, shuffle_id: str) -> None:
        """Close an exchange, or the group it is of."""
        shown: Any = self._channel.unary_unary(f"/{wire.METADATA_SERVICE}/ShowExchange")
        try:
            raw = shown(
                mpb.ShowExchangeRequest(shuffle_id=shuffle_id).SerializeToString(), timeout=_CALL_S
            )
        except grpc.RpcError:  # it was closed meanwhile
            return
        group_id = mpb.ShowExchangeReply.FromString(raw).group_id
        if group_id:
            self._call("CloseGroup", mpb.CloseGroupRequest(group_id=group_id))
        else:
            self._call("CloseExchange", mpb.CloseExchangeRequest(shuffle_id=shuffle_id))

    def _call(self, method: str, request: Any) -> Any:
        _, reply_type = wire.METADATA_METHODS[method]
        stub: Any = self._channel.unary_unary(
            f"/{wire.METADATA_SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply_type.FromString,
        )
        return stub(request, timeout=_CALL_S)
