"""What a service has logged with `--log-format json`."""

from __future__ import annotations

import json
from typing import Any

from support.exchanges import until
from support.processes import Service

JSON = ("--log-format", "json")
_BOUND_S = 20.0

Line = dict[str, Any]


class LogReader:
    """The lines of a service's log, from now on or from its start. Each must be an object."""

    def __init__(self, service: Service, *, from_start: bool = False) -> None:
        self._service = service
        self._skip = 0 if from_start else len(self._read())

    def events(self, kind: str = "", **fields: object) -> list[Line]:
        """The events so far, of one kind, with these fields."""
        wanted = {"event": kind, **fields} if kind else fields
        return [line for line in self.lines() if "event" in line and wanted.items() <= line.items()]

    def lines(self) -> list[Line]:
        """All lines so far."""
        return self._read()[self._skip :]

    def wait(self, kind: str, **fields: object) -> Line:
        """The first such event, once it is there."""

        def there() -> bool:
            return bool(self.events(kind, **fields))

        try:
            until(there, _BOUND_S, kind)
        except AssertionError:
            found = "\n".join(map(str, self.events()))
            raise AssertionError(f"no {kind} with {fields}, but\n{found}") from None
        return self.events(kind, **fields)[0]

    def _read(self) -> list[Line]:
        whole, _, _ = self._service.log.read_text().rpartition("\n")  # the last may be half
        return [json.loads(line) for line in whole.splitlines()]
