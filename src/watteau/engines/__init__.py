"""Where jobs run: one contract, one module for each engine."""
