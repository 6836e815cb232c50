"""Spans of OpenTelemetry: see docs/tracing.md."""
