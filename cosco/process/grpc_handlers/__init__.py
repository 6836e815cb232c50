"""Handlers of calls that both kinds of gRPC server run: see docs/architecture/transport.md."""
