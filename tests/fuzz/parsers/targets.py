"""All targets by name: what each checks; `seeds.py` has what it begins with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import access_checks, content_checks, format_checks, message_checks

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "array": message_checks.array_check,
    "arrow": content_checks.arrow_check,
    "bitmap": message_checks.bitmap_check,
    "block": format_checks.block_check,
    "capability": access_checks.capability_check,
    "chunk": format_checks.chunk_check,
    "commit": message_checks.commit_check,
    "error": message_checks.error_check,
    "fetch_reply": message_checks.fetch_reply_check,
    "fetch_request": message_checks.fetch_request_check,
    "follow": message_checks.follow_check,
    "frame": format_checks.frame_check,
    "http": access_checks.http_check,
    "mark": format_checks.mark_check,
    "push_reply": message_checks.push_reply_check,
    "push_request": message_checks.push_request_check,
    "reading": content_checks.reading_check,
    "record": message_checks.record_check,
    "rows": content_checks.rows_check,
    "segment": format_checks.segment_check,
    "segment_name": format_checks.segment_name_check,
}
