"""Slurm clusters: what they say (`facts`), two ways to ask them (`rest`, `commands`), and the engine on top."""
