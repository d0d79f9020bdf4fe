"""The cluster: joining it, what it can have, and what of that each kind of work is given."""
