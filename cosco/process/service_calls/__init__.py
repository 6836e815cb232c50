"""How the services call each other: see docs/architecture/native.md, "Calls of the services"."""
