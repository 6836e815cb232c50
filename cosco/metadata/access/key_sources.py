"""Where the keys for JWTs come from: a file, or a URL of whoever issues them.

PyJWT has a client for such URLs, which is not used: what it reads has no bound, it blocks, it asks
again for each JWT with an unknown key while the URL does not answer, and keys that it has go with
their time even then.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from email.message import Message
from typing import IO, Final, Protocol

from cosco.config import is_loopback_url
from cosco.errors import InvalidArgument
from cosco.metadata.access.key_sets import NO_KEYS, KeySet, parse_key_set
from cosco.process.files.watched_file import WatchedFile
from cosco.process.files.whole_files import reason

log = logging.getLogger(__name__)

#: Keys are fetched again after this, so that one that was taken back is refused.
FETCH_S: Final = 300.0
#: Between two tries: also if JWTs name unknown keys all the time.
AGAIN_S: Final = 30.0
#: The same as long as there are no keys at all.
FIRST_AGAIN_S: Final = 2.0
#: How long a call waits for keys that are being fetched.
WAIT_S: Final = 5.0
#: How long a server may take for each thing it says, and for all.
_SILENCE_S: Final = 5.0
_WHOLE_S: Final = 15.0
_LOOK_S: Final = 1.0
_MAX_BYTES: Final = 1 << 20
_KIND: Final = "JSON Web Key Set"


class KeySource(Protocol):
    """Gives the keys that are good at present."""

    @property
    def keys(self) -> KeySet:
        """Return them, at once; the same object while they are the same."""

    async def refresh(self) -> None:
        """Have what is new, if it can be had and it was not tried just before."""

    async def watch(self) -> None:
        """Take up what changes, until this is cancelled."""


class KeyFile:
    """Keys in a file, which may change."""

    def __init__(self, path: str) -> None:
        """Read the file; raises InvalidArgument if it cannot be used."""
        self._file = WatchedFile(path, parse_key_set, _KIND)

    @property
    def keys(self) -> KeySet:
        return self._file.content

    async def refresh(self) -> None:
        """Do nothing: the file is looked at each second anyway."""

    async def watch(self) -> None:
        await self._file.watch()


class KeyUrl:
    """Keys at a URL, used from one event loop. What was fetched stays while it does not answer."""

    def __init__(
        self,
        url: str,
        fetch: Callable[[str], bytes] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """fetch: called in a thread, raises InvalidArgument. now_s: a clock that is never set."""
        self._url: Final = url
        #: For the log: what comes after it may be a secret.
        self._shown_url: Final = url.partition("?")[0]
        self._fetch = fetch or fetched
        self._now_s = now_s
        self._keys = NO_KEYS
        self._fetching: asyncio.Task[None] | None = None
        self._tried_s = -AGAIN_S
        self._had_s = -FETCH_S
        self._doubt = ""

    @property
    def keys(self) -> KeySet:
        return self._keys

    async def refresh(self) -> None:
        """Fetch the keys, or wait for who does, for WAIT_S at most; not twice within AGAIN_S."""
        if self._fetching is None:
            pause_s = AGAIN_S if len(self._keys) else FIRST_AGAIN_S
            if self._now_s() - self._tried_s < pause_s:
                return
            self._tried_s = self._now_s()
            self._fetching = asyncio.create_task(self._take_up())
        await asyncio.wait({self._fetching}, timeout=WAIT_S)

    async def watch(self) -> None:
        """Fetch the keys now and each FETCH_S, until this is cancelled."""
        try:
            while True:
                if self._now_s() - self._had_s >= FETCH_S:
                    await self.refresh()
                await asyncio.sleep(_LOOK_S)
        finally:
            if self._fetching is not None:
                self._fetching.cancel()

    async def _take_up(self) -> None:
        try:
            keys = await asyncio.wrap_future(_in_thread(lambda: self._read(self._keys)))
        except (InvalidArgument, RuntimeError) as error:  # no thread is to be had, for one
            if str(error) != self._doubt:
                self._doubt = str(error)
                log.warning("the keys for JWTs stay as they were: %s: %s", self._shown_url, error)
            return
        finally:
            self._fetching = None
        self._had_s, self._doubt = self._now_s(), ""
        if keys is not self._keys:
            self._keys = keys
            log.info("new keys for JWTs are taken up: %d of %s", len(keys), self._shown_url)

    def _read(self, before: KeySet) -> KeySet:
        content = self._fetch(self._url)
        return before if content == before.source else parse_key_set(content)


def fetched(url: str) -> bytes:
    """Return what a URL has. Blocks, for some seconds; follows no redirection.

    Raises: InvalidArgument if it does not answer with that.
    """
    handlers: list[urllib.request.BaseHandler] = [
        _NoRedirection(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
    ]
    if is_loopback_url(url):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    until_s = time.monotonic() + _WHOLE_S
    content = bytearray()
    try:
        with opener.open(url, timeout=_SILENCE_S) as answer:
            while part := answer.read1(1 << 16):
                content += part
                if len(content) > _MAX_BYTES:
                    raise InvalidArgument(f"it is longer than any {_KIND}")
                if time.monotonic() >= until_s:
                    raise InvalidArgument(f"it does not come whole within {_WHOLE_S:.0f} s")
    except urllib.error.HTTPError as error:
        error.close()
        raise InvalidArgument(f"the answer is {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"it cannot be fetched: {reason(error)}") from None
    return bytes(content)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """An answer that sends elsewhere is an error: elsewhere is not what the operator trusts."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        return None


def _in_thread(call: Callable[[], KeySet]) -> Future[KeySet]:
    """Run a call in a thread of its own, which keeps no process from ending."""
    future: Future[KeySet] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  whoever waits is told
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="cosco-keys", daemon=True).start()
    return future
