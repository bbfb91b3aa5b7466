"""What runtimes do, as data."""
