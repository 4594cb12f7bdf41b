"""The random numbers of sampling: each a hash of what it is for, so that no other draw moves it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
GOLDEN = 0x9E3779B97F4A7C15
"""Increment of splitmix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195)."""


@dataclass(frozen=True)
class Stream:
    """Whose random numbers a batch of P prompts draws: a token's is a hash of these, its sample and its place.

    A group that is drawn again takes another `draw`; one that is split into parts tells where each begins.
    """

    seed: int
    """Of the run and the step, or of the evaluation: `siri.seeding.seed_for`."""
    places: Sequence[int]
    """[P] each prompt's problem, by its place in the step or the benchmark."""
    draw: int = 0
    """How often this group has been drawn before."""
    first_samples: Sequence[int] = ()
    """[P] the sample that each prompt's rows begin with; left out, 0."""

    def rows(self, group_size: int) -> Words:
        """[P x group_size] a word per row, which its uniforms are drawn from."""
        places = np.array(self.places, np.uint64).repeat(group_size)
        starts = np.array(self.first_samples or [0] * len(self.places), np.uint64).repeat(group_size)
        samples = starts + np.tile(np.arange(group_size, dtype=np.uint64), len(self.places))
        rows = np.full(len(places), self.seed % 2**64, np.uint64)
        for word in (np.full(len(places), self.draw, np.uint64), places, samples):
            rows = _mix(rows + np.uint64(GOLDEN) * (word + np.uint64(1)))
        return rows


def uniforms(rows: Words, first: int, count: int) -> npt.NDArray[np.float64]:
    """[rows, count] numbers in (0, 1) for the places first … first + count - 1 of each row's response."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    words = _mix(rows[:, None] + np.uint64(GOLDEN) * (numbers + np.uint64(1)))
    # 52 bits and a half: neither 0 nor 1, whatever is rounded.
    found: npt.NDArray[np.float64] = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return found


def _mix(words: Words) -> Words:
    """splitmix64's finaliser, twice: after one round related words can still be alike."""
    for _ in range(2):
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words = words ^ (words >> np.uint64(31))
    return words
