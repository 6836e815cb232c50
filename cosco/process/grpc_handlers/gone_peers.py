"""Keeps peers that are gone out of the log of gRPC's own server.

Whoever gives a call up as it is answered, which any client may, makes it log a traceback as an
error: it cannot send what nobody takes. It is no news, and a stranger could fill a disk with it.
"""

from __future__ import annotations

import logging
from typing import Final

#: What gRPC's own server logs to, and how it says that what it had begun to send cannot be sent.
#: An answer that it could not begin to send is another one: that is a fault of ours.
LOGGER: Final = "grpc._cython.cygrpc"
_ERROR: Final = "ExecuteBatchError"
_UNSENT: Final = 'Failed "execute_batch"'


class _Gone(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged."""
        error = record.exc_info[1] if record.exc_info else None
        return not (type(error).__name__ == _ERROR and str(error).startswith(_UNSENT))


_GONE: Final = _Gone()


def leave_out_gone_peers() -> None:
    """Have such records not logged in this process; repeatable."""
    logging.getLogger(LOGGER).addFilter(_GONE)
