"""What all benchmarks share: rows, what a run needs, what is looked up, and reports."""
