"""What notebooks show of exchanges and applications, and the bar of how far one is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from cosco.client.rpc.metadata_client import MetadataClient
from cosco.errors import CoscoError, InvalidArgument
from cosco.protocol.html_view import facts, size, sizes_picture
from cosco.protocol.records import ExchangeInfo, ExchangeProgress

#: A cell is not to hang since a service is away.
SHOWN_IN_S: Final = 2.0
_LOOK_S: Final = 0.5


def exchange_html(title: str, info: ExchangeInfo, metadata: MetadataClient | None) -> str:
    """Return how far an exchange is. metadata: asked for it; None: the object is closed."""
    about = {
        "partitions": f"{info.spec.partitions:,}",
        "copies": f"{info.spec.replicas}",
        "codec": info.spec.codec,
    }
    if metadata is None:
        return facts(title, about)
    try:
        progress = metadata.within(SHOWN_IN_S).progress(info.number)
    except CoscoError as error:
        return facts(title, about | {"progress": str(error)})
    of = f" of {info.spec.mappers:,}" if info.spec.mappers else ""
    about |= {
        "mappers": f"{progress.mappers_committed:,}{of} committed",
        "rows": f"{progress.rows:,}",
        "bytes": f"{size(progress.bytes_raw)}, stored as {size(progress.bytes_stored)}",
        "copies": f"{progress.replicas} of {info.spec.replicas}",
    }
    return facts(title, about, sizes_picture(progress.partition_bytes))


@contextmanager
def progress_bar(
    look: Callable[[], ExchangeProgress], title: str, mappers: int | None
) -> Iterator[None]:
    """Show how many mappers have committed for as long as the block lasts.

    mappers: how many there are; None: nobody knows, and only a count is shown. What `look` raises
    ends the bar, and nothing else. Raises InvalidArgument without tqdm.
    """
    bar = _tqdm()(total=mappers, desc=title, unit=" mappers", leave=True)
    over = threading.Event()

    def show() -> None:
        progress = look()
        bar.set_postfix_str(f"{progress.rows:,} rows, {size(progress.bytes_raw)}", refresh=False)
        bar.update(progress.mappers_committed - bar.n)
        bar.refresh()

    def follow() -> None:
        try:
            while not over.wait(_LOOK_S):
                show()
        except CoscoError as error:
            bar.set_postfix_str(str(error))

    thread = threading.Thread(target=follow, name="cosco-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        try:
            show()  # how it ended
        except CoscoError as error:
            bar.set_postfix_str(str(error))
        bar.close()


def _tqdm() -> Any:
    """Return the bar of notebooks where there are widgets, else that of terminals."""
    has_widgets = all(find_spec(name) is not None for name in ("ipywidgets", "IPython"))
    try:
        return import_module("tqdm.autonotebook" if has_widgets else "tqdm").tqdm
    except ImportError:
        raise InvalidArgument(
            "a progress bar needs tqdm: run pip install 'cosco[notebook]'"
        ) from None
