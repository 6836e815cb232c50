"""The OpenAPI document of the interface: its examples, and its page."""
