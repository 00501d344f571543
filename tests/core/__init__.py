"""The core against references, rules and itself; `world.py` drives it."""
