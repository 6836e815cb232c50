"""What all of its state is made of: rows, changes, leases, checks."""
