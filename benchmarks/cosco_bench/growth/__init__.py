"""What a GB costs as exchanges grow, and the metadata service at the size of a warehouse."""
