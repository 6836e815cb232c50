"""How many micro-batches to schedule at once, from what coordination was measured to cost.

The rule is Drizzle's (Venkataraman et al., "Drizzle: Fast and Adaptable Stream Processing at
Scale", SOSP 2017, section 3.4): as in TCP's congestion control, but the other way round. While
coordination takes more than an upper share of the time the group grows by a factor, so that the
share falls fast; once it takes less than a lower share the group shrinks step by step, as small
groups adapt sooner to machines that come and go. The share is an exponential average, so that one
slow group does not decide.
"""

from __future__ import annotations

from typing import Final

from cosco.client.argument_checks import finite_number, whole_number
from cosco.errors import InvalidArgument

_SIZE_MAX: Final = 1 << 20


class AdaptiveGroupSize:
    """The size of the next group.

        sizing = AdaptiveGroupSize()
        while True:
            coordination_s, total_s = run_group(sizing.size)
            sizing.observe(coordination_s, total_s)

    Between the two shares, which are of the time of a whole group, the size stays as it is.
    """

    def __init__(
        self,
        size: int = 1,
        *,
        lower: float = 0.05,
        upper: float = 0.10,
        smallest: int = 1,
        largest: int = 1_000,
        factor: float = 2.0,
        step: int = 1,
        weight: float = 0.5,
    ) -> None:
        """Begin with `size`, and keep within `smallest` and `largest`, both included.

        lower, upper: shares of the time, 0 to 1. factor: growth above `upper`, more than 1.
        step: taken off below `lower`. weight: of the latest group in the average, above 0 and
        up to 1.

        Raises: InvalidArgument.
        """
        size, smallest, largest, step = (
            whole_number(name, value, 1, _SIZE_MAX, "")
            for name, value in (
                ("size", size), ("smallest", smallest), ("largest", largest), ("step", step),
            )
        )  # fmt: skip
        lower, upper, factor, weight = (
            finite_number(name, value, "a number")
            for name, value in (
                ("lower", lower), ("upper", upper), ("factor", factor), ("weight", weight),
            )
        )  # fmt: skip
        if not smallest <= size <= largest:
            raise InvalidArgument(
                f"sizes of groups are smallest <= size <= largest: {smallest}, {size}, {largest}"
            )
        if not 0.0 <= lower < upper <= 1.0:
            raise InvalidArgument(f"shares are 0 <= lower < upper <= 1: {lower}, {upper}")
        if not (1.0 < factor <= _SIZE_MAX and 0.0 < weight <= 1.0):
            raise InvalidArgument(
                f"factor is more than 1 and at most {_SIZE_MAX}, weight above 0 and up to 1: "
                f"{factor}, {weight}"
            )
        self._bounds = smallest, largest
        self._shares = lower, upper
        self._factor = factor
        self._step = step
        self._weight = weight
        #: Micro-batches of the next group.
        self.size = size
        #: The averaged share of coordination; None before the first group.
        self.share: float | None = None

    def observe(self, coordination_s: float, total_s: float) -> int:
        """Take note of a group of the present size.

        coordination_s: how much of the `total_s` seconds that it took was not spent in tasks.

        Returns: the size of the next group.
        Raises: InvalidArgument for times that cannot be.
        """
        coordination_s = finite_number("coordination_s", coordination_s, "a number of seconds")
        total_s = finite_number("total_s", total_s, "a number of seconds")
        if not 0.0 <= coordination_s <= total_s or total_s == 0.0:
            raise InvalidArgument(
                f"{coordination_s} s of coordination in a group of {total_s} s in all"
            )
        found = coordination_s / total_s
        share = found if self.share is None else self.share + self._weight * (found - self.share)
        self.share = share
        (smallest, largest), (lower, upper) = self._bounds, self._shares
        if share > upper:
            self.size = min(largest, max(self.size + 1, int(self.size * self._factor)))
        elif share < lower:
            self.size = max(smallest, self.size - self._step)
        return self.size
