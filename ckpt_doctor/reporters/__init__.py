"""One module a format: reports → text."""
