"""Frames in: from writers and primaries, and on to replicas."""
