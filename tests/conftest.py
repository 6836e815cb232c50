"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import settings

import cosco  # noqa: F401  before any test imports grpc: it turns fork support on

# Machines that run several checks at once are slow now and then; that is no failure.
settings.register_profile("cosco", deadline=None, print_blob=True)
settings.load_profile("cosco")

# A shell has what it starts in the background ignore SIGINT, and so would all programs that tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
