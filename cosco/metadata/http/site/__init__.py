"""The interface as a whole."""
