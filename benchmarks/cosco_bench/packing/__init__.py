"""What a GB of rows costs a writer until its frames are made."""
