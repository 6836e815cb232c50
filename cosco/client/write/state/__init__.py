"""What a writer decides: packing, framing, routes, what to do about trouble. No IO."""
