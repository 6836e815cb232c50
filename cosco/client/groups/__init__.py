"""Exchange groups: many small exchanges, written and read without asking anybody."""
