"""Where adapters and models lie, and the bytes of both: finding, reading, writing, swapping in."""
