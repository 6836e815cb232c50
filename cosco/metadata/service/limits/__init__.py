"""What one host, tenant or cluster may have of the metadata service at a time."""
