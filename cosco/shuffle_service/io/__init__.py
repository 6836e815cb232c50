"""The loop around a daemon's state: calls, disks, other services."""
