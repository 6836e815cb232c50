"""One store over several directories: docs/architecture/directories.md."""
