"""Certificates and keys: where they are, when they change, and who makes them."""
