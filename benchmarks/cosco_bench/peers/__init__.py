"""`cosco-bench peers`."""
