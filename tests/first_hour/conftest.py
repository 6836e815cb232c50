"""Fixtures: `support.service_fixtures` has them."""

from support.service_fixtures import (  # noqa: F401
    cluster,
    fresh_interpreters,
    metadata,
    name,
    prepared_services,
    small_disk,
    started,
)
