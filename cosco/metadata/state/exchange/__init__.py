"""One exchange: attempts, commits, builds, epochs, losses, its end."""
