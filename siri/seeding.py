"""Every random number comes from a generator seeded here, so that it depends on (seed, purpose, step) alone."""

import hashlib


def seed_for(seed: int, purpose: str, step: int = 0) -> int:
    """A 63-bit seed for one purpose at one step; equal arguments give equal seeds on every machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
