"""What one tenant may have of a daemon, which others then have no less of. No IO."""
