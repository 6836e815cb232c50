"""Files that are read and written whole, and taken up when they change."""
