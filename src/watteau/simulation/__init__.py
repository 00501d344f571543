"""Drives the core with a virtual clock and simulated completions, and reports what happened."""
