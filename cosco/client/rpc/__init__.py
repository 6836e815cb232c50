"""How a client calls the services: shared channels, calls that can be cancelled, forks."""
