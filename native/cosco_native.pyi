"""The native part of Cosco; each call has a twin in `cosco` that does the same in Python."""

from typing import Final

#: Which calls there are: compared by `cosco.mechanics`.
INTERFACE: Final[int]
VERSION: Final[str]
