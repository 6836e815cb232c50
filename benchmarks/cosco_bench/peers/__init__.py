"""The same large job on cosco and on other systems, which run as programs of their own."""
