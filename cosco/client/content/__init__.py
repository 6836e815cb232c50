"""What rows look like inside a block: byte rows and Arrow batches."""
