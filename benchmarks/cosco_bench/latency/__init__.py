"""One row to a waiting reader, small exchanges, and micro-batches in exchange groups."""
