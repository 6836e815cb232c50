"""The way of a row from daemons to `row()`."""
