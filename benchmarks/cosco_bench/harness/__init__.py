"""What all benchmarks share: rows, reports, machines, temporary folders."""
