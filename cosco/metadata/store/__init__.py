"""Where the state is kept: SQL."""
