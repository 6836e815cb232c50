"""Rows end to end; what public calls cost, and a ledger of every stage alone."""
