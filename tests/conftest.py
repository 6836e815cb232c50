"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# Machines that run several checks at once are slow now and then; that is no failure.
settings.register_profile("cosco", deadline=None, print_blob=True)
settings.load_profile("cosco")
