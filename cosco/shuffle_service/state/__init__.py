"""What a daemon holds and decides. No IO, no clock."""
