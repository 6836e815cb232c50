"""Exchange groups as the service keeps them."""
