"""Who may do what: keys of capabilities, and the rights that a call needs."""
