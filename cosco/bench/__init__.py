"""Benchmarks: workloads that check themselves, their figures, and where the time goes."""
