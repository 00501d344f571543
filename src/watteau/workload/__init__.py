"""What is asked: traces in, calibrated generators, and resampling to a wanted load."""
