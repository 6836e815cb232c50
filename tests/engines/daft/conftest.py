"""What tests of Daft share."""

from __future__ import annotations

import os

# Nothing may report to its makers from a test.
os.environ["DO_NOT_TRACK"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
