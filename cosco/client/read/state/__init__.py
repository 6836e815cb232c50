"""What a reader decides: whom to ask, and what of it to believe. No IO."""
