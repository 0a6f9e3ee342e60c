"""The toy framework: NumPy alone."""
