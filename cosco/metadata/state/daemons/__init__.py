"""The daemons: who lives, who gets what, and what happens when one does not."""
