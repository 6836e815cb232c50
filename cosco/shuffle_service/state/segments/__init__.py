"""Which chunks make a segment, and what is known of those that are stored. No IO."""
