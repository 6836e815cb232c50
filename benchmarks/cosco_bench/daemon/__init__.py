"""What a GB costs one daemon, with frames that were packed beforehand."""
