"""The times of rows: how they are written, and the step from one to the next."""
