"""What is kept of exchanges that have ended."""
