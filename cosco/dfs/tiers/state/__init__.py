"""What is decided about tiers, without IO."""
