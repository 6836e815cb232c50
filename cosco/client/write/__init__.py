"""The way of a row from `collect` to a daemon's acknowledgement."""
