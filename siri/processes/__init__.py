"""Which processes live, which end with which, and how a stop is asked for."""
