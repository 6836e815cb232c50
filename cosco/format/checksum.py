"""CRC-32 as zlib defines it, sixteen times as fast as zlib where there is ISA-L.

Every stored byte meets it four times: at the writer, at each daemon and at the reader.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:  # a machine that ISA-L has not been built for
    from zlib import crc32

__all__ = ["crc32"]
