"""What a primary forwards, and what a replica keeps for it. No IO."""
