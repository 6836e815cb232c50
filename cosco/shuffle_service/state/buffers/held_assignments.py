"""The assignments that a daemon holds something of, by key and by exchange. No IO."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, ValuesView

from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.buffers.old_epochs import Going


class HeldAssignments:
    """Every assignment once; their keys are what it contains."""

    def __init__(self) -> None:
        self._held: dict[AssignmentKey, AssignmentBuffers] = {}
        self._keys: dict[int, list[AssignmentKey]] = {}  # by number of the exchange

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, key: AssignmentKey) -> AssignmentBuffers:
        return self._held[key]

    def get(self, key: AssignmentKey) -> AssignmentBuffers | None:
        """Return an assignment, if it is held."""
        return self._held.get(key)

    def values(self) -> ValuesView[AssignmentBuffers]:
        """Return all of them."""
        return self._held.values()

    def numbers(self) -> KeysView[int]:
        """Return the numbers of the exchanges of which any is held."""
        return self._keys.keys()

    def add(self, held: AssignmentBuffers) -> None:
        """Hold an assignment that was not held."""
        self._held[held.key] = held
        self._keys.setdefault(held.key.number, []).append(held.key)

    def keys_of(self, going: Going) -> Iterator[AssignmentKey]:
        """Yield the keys of those that are to go."""
        return (key for key in self._keys.get(going.number, ()) if key in going)

    def pop(self, going: Going) -> list[AssignmentBuffers]:
        """Hold some no longer. Returns them."""
        gone = list(self.keys_of(going))
        kept = [key for key in self._keys.pop(going.number, ()) if key not in going]
        if kept:
            self._keys[going.number] = kept
        return [self._held.pop(key) for key in gone]
