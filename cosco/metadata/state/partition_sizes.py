"""How large the partitions of an exchange are: a picture of all of them, and a list by pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cosco.errors import InvalidArgument
from cosco.protocol.admin_records import PartitionSize
from cosco.protocol.records import U64

#: As far as partitions are listed by size.
MAX_BY_SIZE: Final = 10_000
#: Bands of a picture.
MAX_BANDS: Final = 128
#: The shares of partitions that are at most as large as the quantile of that name.
QUANTILES: Final = (0.0, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Band:
    """`count` consecutive partitions from `first` on: their bytes, and those of the largest.

    raw_bytes: None where it was not kept.
    """

    first: int
    count: int
    raw_bytes: int | None
    largest_bytes: int


@dataclass(frozen=True, slots=True)
class SizePicture:
    """Committed bytes of all partitions before compression.

    quantiles: of the shares QUANTILES; None where they were not kept. skew: how many times the
    mean the largest one is; 0 without bytes.
    """

    bands: tuple[Band, ...]
    quantiles: tuple[int | None, ...]
    mean_bytes: float
    skew: float

    @property
    def largest_bytes(self) -> int:
        return max(band.largest_bytes for band in self.bands)


def size_picture(raw_bytes: U64, max_bands: int = MAX_BANDS) -> SizePicture:
    """Return a picture of the sizes of partitions, of which there is one at least."""
    count = len(raw_bytes)
    starts = np.unique(np.linspace(0, count, min(max_bands, count), endpoint=False, dtype=np.int64))
    sums = np.add.reduceat(raw_bytes, starts)
    largest = np.maximum.reduceat(raw_bytes, starts)
    bands = zip(
        starts.tolist(),
        np.diff(starts, append=count).tolist(),
        sums.tolist(),
        largest.tolist(),
        strict=True,
    )
    quantiles = _quantiles(raw_bytes)
    mean = float(raw_bytes.sum()) / count
    return SizePicture(
        bands=tuple(Band(*band) for band in bands),
        quantiles=quantiles,
        mean_bytes=mean,
        skew=quantiles[-1] / mean if mean else 0.0,
    )


def kept_picture(
    largest_bytes: Sequence[int], partitions: int, raw_bytes: int
) -> SizePicture | None:
    """Return a picture of an exchange that has ended, by what is kept of it; None: nothing is.

    largest_bytes: see `cosco.protocol.finished_exchange.size_bars`. raw_bytes: of all
    partitions together.
    """
    if not largest_bytes:
        return None
    each = -(-partitions // len(largest_bytes))
    is_whole = len(largest_bytes) == partitions
    mean, largest = raw_bytes / partitions, max(largest_bytes)
    return SizePicture(
        bands=tuple(
            Band(
                first=place * each,
                count=min(each, partitions - place * each),
                raw_bytes=size if is_whole else None,
                largest_bytes=size,
            )
            for place, size in enumerate(largest_bytes)
        ),
        quantiles=_quantiles(np.array(largest_bytes, dtype=np.uint64))
        if is_whole
        else (*(None for _ in QUANTILES[:-1]), largest),
        mean_bytes=mean,
        skew=largest / mean if mean else 0.0,
    )


def _quantiles(raw_bytes: U64) -> tuple[int, ...]:
    places = [round(share * (len(raw_bytes) - 1)) for share in QUANTILES]
    ordered = np.partition(raw_bytes, places)
    return tuple(int(ordered[place]) for place in places)


def check_by_size(skip: int) -> None:
    """Raise InvalidArgument for a page by size after more than the first MAX_BY_SIZE partitions."""
    if skip > MAX_BY_SIZE:
        raise InvalidArgument(
            f"by size the first {MAX_BY_SIZE} partitions are listed, not those after {skip}: list "
            "them by their numbers"
        )


def size_page(
    rows: U64, raw_bytes: U64, skip: int, limit: int, *, by_size: bool
) -> list[PartitionSize]:
    """Return partitions after the first `skip`, at most `limit`.

    by_size: the largest first, of those as large the one with the lowest number; else by number.
    Raises InvalidArgument beyond the first MAX_BY_SIZE by size.
    """
    if by_size:
        check_by_size(skip)
    end = min(skip + limit, len(rows))
    if skip >= end:
        return []
    chosen = _largest_first(raw_bytes, end)[skip:] if by_size else np.arange(skip, end)
    picked = zip(chosen.tolist(), rows[chosen].tolist(), raw_bytes[chosen].tolist(), strict=True)
    return [PartitionSize(*one) for one in picked]


def _largest_first(raw_bytes: U64, count: int) -> npt.NDArray[np.int64]:
    """Return the `count` largest partitions; sorting all of many would hold up others."""
    # Turned round, as numpy takes 40 times as long for the far end of an array of nearly all zeros.
    least = ~np.partition(~raw_bytes, count - 1)[count - 1]
    larger = np.flatnonzero(raw_bytes > least)
    larger = larger[np.argsort(~raw_bytes[larger], kind="stable")]
    return np.concatenate((larger, np.flatnonzero(raw_bytes == least)[: count - len(larger)]))
