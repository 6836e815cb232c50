"""A store over a fast tier that is a daemon's own, and a slow one: docs/architecture/tiers.md."""
