"""A gRPC server on the native transport: see docs/architecture/native.md."""
