"""The live shell around the core: the clock, the cycle, the lease."""
