"""Which build of Cosco this is."""

from __future__ import annotations

import importlib.metadata

try:
    VERSION = importlib.metadata.version("cosco")
except importlib.metadata.PackageNotFoundError:  # run from a source tree
    VERSION = "0+unknown"
