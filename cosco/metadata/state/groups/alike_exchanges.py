"""For which other exchanges of a group an assignment holds as well."""

from __future__ import annotations

from collections.abc import Mapping

from pyroaring import BitMap

from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.groups.group_rows import Block
from cosco.protocol.group_records import Alike
from cosco.protocol.records import Assignment


def alike_in(block: Block, assignment: Assignment, exchanges: Mapping[int, ExchangeState]) -> Alike:
    """The exchanges of a block that have this assignment, and of which it is in force.

    The daemon keeps the answer and admits them all without another question. Why it never
    admits what is fenced:

    - What was sealed, or closed, before this look is left out: `seal` marks an epoch in the
      same step that decides it, before any daemon is told, and sealed never ends.
    - What is sealed after it is fenced at every daemon of the assignment that lives
      (`Failover.seal`), asked for it or not, and its next epoch begins only when they have
      confirmed. The answer and the fence may overtake each other on their way; so a daemon
      that confirms a fence remembers it against answers that it has, or waits for.
    - A daemon that is thought dead is not waited for, here as elsewhere: what it takes
      meanwhile is of an epoch that has ended, whether it had met the exchange or not. When
      it is heard of again it is fenced for all that is sealed and names it
      (`Failover.returned`).
    - After a restart of the service all that is sealed is fenced again
      (`Failover.resume`). A daemon's restart is another incarnation, which is in no
      assignment that was made before.
    - What is closed after it is dropped by the daemon's next heartbeats: everyone whom the
      assignment names is waited for (`Members.exchange_closed`).

    exchanges: those that are open.
    """
    without = BitMap()
    for offset in range(block.size):
        other = exchanges.get(block.number + offset)
        if other is None or other.assignment(assignment.range_index, 1) != assignment:
            without.add(offset)
    return Alike(block.number, block.size, without)
