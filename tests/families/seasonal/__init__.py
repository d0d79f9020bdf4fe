"""A toy family: what a second one needs at least."""
