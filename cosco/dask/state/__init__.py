"""What a shuffle of Dask is at: decisions, without IO."""
