"""Applications as the service keeps them."""
