"""What clients get at of disks by themselves: `StoreFiles`, with the faults of hosts and servers.

A host may have another store at the same place, or a mount that hangs for good; any read may find
nothing, be refused, be slow, end too soon, or bring something else. Nothing of that may change what
a reader gives, or have anything computed again: a daemon can be asked.
"""

from __future__ import annotations

import errno
import random

from cosco.client.read.state.direct_chunk import DirectFailed, DirectFile
from cosco.errors import DataCorrupted
from cosco.format.segment import FOOTER_BYTES, check_footer

from . import threads
from .loop import PROCESS
from .world import World, current

#: The share of hosts that have another store there, and of those whose mount hangs for good.
_OTHERS = 0.12
_HUNG = 0.08
#: The share of reads that go wrong in some way of their own.
_FAULTY = 0.05


class ClientFiles:
    """Stands for `cosco.client.read.store_files.StoreFiles`."""

    def __init__(self) -> None:
        self._world = current()

    def read(self, store_id: str, file: DirectFile, offset: int, length: int) -> memoryview:
        world, reference = self._world, file.reference
        rng = _rng(world)
        self._reach(rng)
        name, _, rest = reference.url.removeprefix("file:///").partition("/")
        path, _, until = rest.partition("?")
        disk = world.disks[name]
        threads.sleep(0.0005 * disk.slowness * (0.5 + rng.random()))
        if world.loop.now > float(until):
            world.count("direct: expired")
            raise DirectFailed("its server answers 403")
        if path != reference.path:
            world.problem(f"{path} is read for {reference.path}")
        if disk.store_id != store_id:  # its host was lost meanwhile, and another one came
            world.count("direct: another store")
            raise DirectFailed("of another store")
        data = disk.files.get(path)
        if data is None:
            world.count("direct: gone")
            raise FileNotFoundError(errno.ENOENT, "no such file on the simulated disk", path)
        if len(data) != reference.file_bytes:
            raise DirectFailed("another length than was named")
        try:
            footer = bytes(data[-FOOTER_BYTES:])
            check_footer(file.segment, len(data), footer, reference.index_crc)
        except DataCorrupted as error:
            raise DirectFailed(str(error)) from None
        found = bytearray(data[offset : offset + length])
        self._spoil(rng, found)
        world.count("direct: read")
        return memoryview(found)

    def close(self) -> None:
        """There is nothing to be closed."""

    def _reach(self, rng: random.Random) -> None:
        process = PROCESS.get()
        assert process is not None
        fate = random.Random(f"direct {self._world.seed} {process.host}").random()
        if fate < _OTHERS:
            self._world.count("direct: another store")
            raise DirectFailed("of another store")
        if fate < _OTHERS + _HUNG:
            self._world.count("direct: hung")
            threads.Event().wait()
        if rng.random() < _FAULTY / 2:
            kind = rng.choice(("slow", "slow", "refused", "missing"))
            self._world.count(f"direct: {kind}")
            if kind == "slow":
                threads.sleep(30 * rng.random())
            elif kind == "refused":
                raise DirectFailed("its server answers 503")
            else:
                raise FileNotFoundError(errno.ENOENT, "not here")

    def _spoil(self, rng: random.Random, data: bytearray) -> None:
        """Have it end too soon, be zeros from somewhere on, or have a flipped bit."""
        if not data or rng.random() >= _FAULTY / 2:
            return
        kind = rng.choice(("short", "zeros", "flipped"))
        self._world.count(f"direct: {kind}")
        at = rng.randrange(len(data))
        if kind == "short":
            del data[at:]
        elif kind == "zeros":
            data[at:] = bytes(len(data) - at)
        else:
            data[at] ^= 1 << rng.randrange(8)


def _rng(world: World) -> random.Random:
    """What decides over reads, so that a world without any is the same as ever."""
    if world.direct_rng is None:
        world.direct_rng = random.Random(f"direct reads {world.seed}")
    return world.direct_rng
