"""Where a client finds its cluster, and as whom it calls."""
