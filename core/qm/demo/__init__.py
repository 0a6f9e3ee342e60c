"""A small real model with its samples, for ``qm demo``; examples/digits tells where they come from."""
