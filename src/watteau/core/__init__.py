"""THE decision: pure, array-based, compiled. Live and simulation only drive it."""
