"""What one assignment is made of: pages, buffers, known blocks, marks. No IO."""
