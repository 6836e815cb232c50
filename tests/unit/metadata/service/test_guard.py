"""Who may make a call is decided by what there is when it acts, not by what there was when it came.

A call that names an id of nothing asks the database whether it was ever used; meanwhile somebody
else may make what it names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyroaring import BitMap
from support.metadata_cluster import OWNER

from cosco.metadata.service.guard import Guard
from cosco.metadata.service.handlers import Handlers
from cosco.metadata.service.journal import Journal
from cosco.metadata.service.polls import Polls
from cosco.metadata.state.state import MetadataState
from cosco.metadata.store import database as database_module
from cosco.metadata.store.database import Database, open_database
from cosco.protocol import wire
from cosco.protocol.capability import PREFIX
from cosco.protocol.peer import Peer, Principal, Role, ServiceNames
from cosco.protocol.records import DaemonRegistration, ExchangeSpec
from cosco.protocol.wire import mpb

WHO = {
    "ours": Principal("one", "ours", Role.TENANT),
    "theirs": Principal("two", "theirs", Role.TENANT),
    "admin": Principal("three", "operators", Role.ADMIN),
}


#: Calls that a tenant may have under way.
CALLS_MAX = 4


class Tokens:
    def known(self, token: str) -> Principal | None:
        return WHO.get(token)

    async def principal(self, token: str) -> Principal:
        return WHO[token]


class Aborted(Exception):
    pass


class Context:
    """What a handler needs of a call."""

    def __init__(self, credential: str) -> None:
        self.peer = Peer("here:1", frozenset(), is_encrypted=True, credential=credential)
        self.code: grpc.StatusCode | None = None

    async def abort(self, code: grpc.StatusCode, *_: Any, **__: Any) -> None:
        self.code = code
        raise Aborted


class Asked(Database):
    """Says when it is looked whether an id was used, and answers when it is told to."""

    def begin(self) -> None:
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def was_used(self, shuffle_id: str) -> bool:
        await self._wait()
        return await super().was_used(shuffle_id)

    async def was_group(self, group_id: str) -> bool:
        await self._wait()
        return await super().was_group(group_id)

    async def _wait(self) -> None:
        self.asked.set()
        await self.may_answer.wait()


class Service:
    """The metadata service without a server."""

    def __init__(self, state: MetadataState, journal: Journal, database: Asked) -> None:
        self.state = state
        self.database = database
        self.refused: list[str] = []
        polls = Polls(state, 1 << 20)
        names = ServiceNames("a daemon", "the service", is_checked=True)
        guard = Guard(state, names, Tokens(), self.refused.append, CALLS_MAX)
        self.handlers = Handlers(state, polls, journal, database, guard)

    async def call(self, who: str, method: str, request: Any) -> grpc.StatusCode:
        context = Context(who)
        try:
            await self.handlers._answering(method)(request, context)  # type: ignore[arg-type]
        except Aborted:
            assert context.code is not None
            return context.code
        return grpc.StatusCode.OK

    def make(self, name: str, tenant: str) -> None:
        spec = ExchangeSpec(name, 2, replicas=1)
        self.state.create_exchange(spec, OWNER, 0.0, used=False, tenant=tenant)

    def make_group(self, name: str, tenant: str) -> None:
        spec = ExchangeSpec(name, 2, replicas=1)
        groups = self.state.groups
        groups.create(spec, 2, 3, 0, OWNER, 0.0, callback=False, tenant=tenant)


@asynccontextmanager
async def serving(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr(database_module, "Database", Asked)
    async with open_database(str(directory / "metadata.db")) as database:
        assert isinstance(database, Asked)
        database.begin()
        state = await database.load(
            lambda stored: MetadataState(stored, daemon_lease_s=9, ranges_per_daemon=2, now=0.0)
        )
        state.register(DaemonRegistration(1, "a:1", "host", "store", 100, 100), 0.0)
        state.access.begin(b"k" * 32, 0.0, 0.0)
        journal = Journal(state, database.write)
        task = asyncio.create_task(journal.run())
        try:
            yield Service(state, journal, database)
        finally:
            task.cancel()


def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    test: Callable[[Service], Awaitable[None]],
) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20), serving(tmp_path, monkeypatch) as service:
            await test(service)

    asyncio.run(bounded())


LATE = {
    "OpenAttempt": mpb.OpenAttemptRequest(shuffle_id="x"),
    "DescribeExchange": mpb.DescribeExchangeRequest(shuffle_id="x"),
    "take over": mpb.DescribeExchangeRequest(shuffle_id="x", owner=b"t" * 16),
    "CloseExchange": mpb.CloseExchangeRequest(shuffle_id="x"),
    "ShowExchange": mpb.ShowExchangeRequest(shuffle_id="x"),
    "PollGroup": mpb.PollGroupRequest(group_id="x", owner=b"t" * 16),
    "ReleaseExchanges": mpb.ReleaseExchangesRequest(group_id="x"),
    "CloseGroup": mpb.CloseGroupRequest(group_id="x"),
    "MakeCapability": mpb.MakeCapabilityRequest(group_id="x", read=True),
    "CreateGroup": mpb.CreateGroupRequest(
        spec=wire.to_pb(ExchangeSpec("x", 2, replicas=1)), size=3, mappers=2, owner=OWNER
    ),
}


@pytest.mark.parametrize("who", ["theirs", "ours"])
@pytest.mark.parametrize("call", LATE)
def test_what_somebody_makes_while_a_call_waits_is_his(
    call: str, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = "DescribeExchange" if call == "take over" else call

    async def test(service: Service) -> None:
        waiting = asyncio.create_task(service.call(who, method, LATE[call]))
        await service.database.asked.wait()
        is_group = any(part in method for part in ("Group", "Release", "Capability"))
        make = service.make_group if is_group else service.make
        make("x", "ours")
        service.database.may_answer.set()
        code = await waiting
        assert (code is grpc.StatusCode.PERMISSION_DENIED) == (who == "theirs")
        assert (service.refused == ["access"]) == (who == "theirs")

    run(tmp_path, monkeypatch, test)


def test_commits_of_a_batch_are_checked_one_by_one_as_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other calls have their turn between them, and may make what later ones name."""

    async def test(service: Service) -> None:
        made = False

        def make() -> None:
            nonlocal made
            if not made:
                made = True
                service.make_group("victim", "ours")

        asyncio.get_running_loop().call_soon(make)
        commits = [
            mpb.CommitRequest(number=number, mapper=mapper, attempt=1 << 63, generation=1)
            for _ in range(100)
            for number in (1, 2, 3)
            for mapper in (0, 1)
        ]
        request = mpb.CommitBatchRequest(commits=commits)
        assert await service.call("theirs", "CommitBatch", request) is grpc.StatusCode.OK
        assert made
        assert [e.attempts.committed for e in service.state.members._directory.open.values()] == [
            {} for _ in range(3)
        ]

    run(tmp_path, monkeypatch, test)


@pytest.mark.parametrize(
    ("who", "code"),
    [("ours", "OK"), ("", "PERMISSION_DENIED"), (PREFIX + "AAAA", "PERMISSION_DENIED")],
)
def test_a_credential_is_asked_for(
    who: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(service: Service) -> None:
        said = await service.call(who, "Status", mpb.StatusRequest())
        assert said.name == code

    run(tmp_path, monkeypatch, test)


def test_a_tenant_has_no_more_calls_under_way_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(service: Service) -> None:
        async def ask(who: str) -> str:
            request = mpb.DescribeExchangeRequest(shuffle_id="x")
            return (await service.call(who, "DescribeExchange", request)).name

        waiting = [asyncio.create_task(ask("ours")) for _ in range(CALLS_MAX)]
        await service.database.asked.wait()
        assert await ask("ours") == "UNAVAILABLE"
        assert service.refused == ["tenant_calls"]
        others = asyncio.create_task(ask("theirs"))  # of another tenant
        service.database.may_answer.set()
        assert {await one for one in (*waiting, others)} == {"FAILED_PRECONDITION"}
        for _ in range(CALLS_MAX + 1):  # those that have ended count no more
            assert await ask("ours") == "FAILED_PRECONDITION"
        service.make("y", "ours")
        exchange = service.state.describe_exchange("y", b"", 0.0, used=False)
        request = mpb.DescribeExchangeRequest(shuffle_id="y")
        for _ in range(CALLS_MAX + 1):
            said = await service.call(exchange.capability, "DescribeExchange", request)
            assert said is grpc.StatusCode.OK
        assert not service.handlers._guard.calls._tallies

    run(tmp_path, monkeypatch, test)


def test_tasks_with_handles_count_as_their_tenant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(service: Service) -> None:
        service.make("y", "ours")
        shown = service.state.describe_exchange("y", b"", 0.0, used=False).capability
        mappers = BitMap([0]).serialize()
        request = mpb.AwaitCommitsRequest(number=1, mappers=mappers, wait_s=20)
        waiting = [
            asyncio.create_task(service.call(shown, "AwaitCommits", request))
            for _ in range(CALLS_MAX)  # of which one is refused: a quarter is not for readers
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        status = mpb.StatusRequest()
        for looking in ("Status", "ListEvents"):
            message = status if looking == "Status" else mpb.ListEventsRequest(limit=1, severity=20)
            assert (await service.call("ours", looking, message)).name == "UNAVAILABLE"
        assert (await service.call("theirs", "Status", status)).name == "OK"
        # His writers and drivers are heard all the same: readers wait for them.
        opened = await service.call("ours", "OpenAttempt", mpb.OpenAttemptRequest(shuffle_id="y"))
        assert opened.name == "OK"
        polled = await service.call("ours", "PollDriver", mpb.PollDriverRequest(number=1))
        assert polled.name == "INVALID_ARGUMENT"  # it names no owner
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await service.call("ours", "Status", status)).name == "OK"

    run(tmp_path, monkeypatch, test)


def test_nobody_but_a_daemon_speaks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A primary that misses its replica has its ranges moved: of others that is not believed."""

    async def test(service: Service) -> None:
        said: list[int] = []
        report = service.state.members.report

        def noted(suspect: Any, reporter: int, *others: Any) -> Any:
            said.append(reporter)
            return report(suspect, reporter, *others)

        service.state.members.report = noted  # type: ignore[method-assign]
        ref = mpb.DaemonRef(incarnation=7, address="a:1")
        request = mpb.ReportDaemonRequest(daemon=ref, reporter=1, insist=True)
        await service.call("ours", "ReportDaemon", request)
        assert said == [0]

    run(tmp_path, monkeypatch, test)


def test_a_capability_is_of_an_exchange_or_a_group_and_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that one has beside a group of another tenant opens that to nobody, nor the other
    way round."""

    async def test(service: Service) -> None:
        service.database.may_answer.set()
        service.make("x", "ours")  # number 1
        service.make_group("g", "theirs")  # 2 to 4
        for who, number, group_id, code in (
            ("ours", 1, "", "OK"),
            ("theirs", 0, "g", "OK"),
            ("theirs", 3, "", "OK"),
            ("admin", 0, "g", "OK"),
            ("theirs", 1, "", "PERMISSION_DENIED"),
            ("ours", 0, "g", "PERMISSION_DENIED"),
            ("ours", 3, "", "PERMISSION_DENIED"),
            ("ours", 1, "g", "PERMISSION_DENIED"),
            ("theirs", 1, "g", "PERMISSION_DENIED"),
            ("admin", 1, "g", "INVALID_ARGUMENT"),
            ("ours", 0, "", "FAILED_PRECONDITION"),
            ("ours", 0, "nothing", "FAILED_PRECONDITION"),
        ):
            request = mpb.MakeCapabilityRequest(number=number, group_id=group_id, read=True)
            said = await service.call(who, "MakeCapability", request)
            assert said.name == code, (who, number, group_id)

    run(tmp_path, monkeypatch, test)
