"""What the metadata service decides. No IO, no clock."""
