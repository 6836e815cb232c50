"""Every promise in docs/reliability.md names a test, and the test is there."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_REFERENCE = re.compile(r"`([\w/.]*?)(?:::(\w+))?`")


def test_each_row_of_the_table_names_tests_that_exist() -> None:
    text = (_ROOT / "docs" / "reliability.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [
        row for row in rows if not row.startswith(("| failure |", "| what happened |", "| --- |"))
    ]
    assert len(rows) > 20
    for row in rows:
        failure, promise, shown_by = row.strip("| ").split(" | ")
        assert failure and promise
        named = ""
        references = _REFERENCE.findall(shown_by)
        assert references, row
        for path, test in references:
            named = path or named
            found = _ROOT / "tests" / named
            assert found.exists(), f"{named} of {row}"
            if test:
                assert f"def {test}(" in found.read_text(), f"{named}::{test} of {row}"
