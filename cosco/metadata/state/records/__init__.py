"""What all of the state is made of: rows, changes, leases."""
