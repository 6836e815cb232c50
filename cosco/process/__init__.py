"""What every process of Cosco sets for itself: its allocator and gRPC's settings.

Words: docs/words.md.
"""
