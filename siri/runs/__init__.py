"""Runs and their way through the store: identity, the chain of keys, the base, catalogue, forecast, retention."""
