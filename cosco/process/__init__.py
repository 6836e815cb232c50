"""What a process of Cosco sets for itself: its allocator, gRPC, and with whom it ends."""
