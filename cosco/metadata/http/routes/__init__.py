"""The routes of the interface; each is a call of the service."""
