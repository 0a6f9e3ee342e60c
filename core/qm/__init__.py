"""Make machine-learning models small and fast, and prove that they are still right."""
