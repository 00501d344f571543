"""The `watteau` command: reads files, calls the parts, prints tables and JSON."""
