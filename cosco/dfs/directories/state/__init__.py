"""What becomes of several directories, without IO: docs/architecture/directories.md."""
