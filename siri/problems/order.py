"""Which problems a step sees: a function of (seed, step) alone, so that a resumed run goes on where it stopped."""

import random
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import pairwise

from siri.errors import InputError
from siri.problems.problem import Problem, ProblemSet
from siri.seeding import seed_for


def problems_of_step(problems: ProblemSet | Sequence[Problem], seed: int, step: int, batch_size: int) -> list[Problem]:
    """The `batch_size` problems of one step, counted from 1.

    The steps deal out one seeded permutation after the other, each problem once per permutation; a batch may straddle
    two of them, or hold several when it is larger than the set.
    """
    members = problems.problems if isinstance(problems, ProblemSet) else problems
    if not members or step < 1 or batch_size < 1:
        raise InputError(
            f"problems of step {step}: {len(members)} problems, batch_size {batch_size}; each must be at least 1"
        )
    places = range((step - 1) * batch_size, step * batch_size)
    return [members[_permutation(seed, place // len(members), len(members))[place % len(members)]] for place in places]


def problems_of_draw(
    problems: ProblemSet | Sequence[Problem], seed: int, step: int, draw: int, taken: Collection[str], count: int
) -> list[Problem]:
    """`count` problems of a step's further draw (2, 3, …), other than those `taken` (ids) while there are others.

    They stand in a seeded order of (seed, step, draw).
    """
    members = problems.problems if isinstance(problems, ProblemSet) else problems
    rng = random.Random(seed_for(seed, f"problems of draw {draw}", step))
    keys = [rng.random() for _ in members]
    order = sorted(range(len(members)), key=lambda place: (members[place].id in taken, keys[place]))
    return [members[order[place % len(order)]] for place in range(count)]


def deal(count: int, minibatches: int, seed: int, step: int) -> list[list[int]]:
    """Which of a step's `count` problems stand in each of its minibatches: shuffled and dealt out evenly.

    There are no more minibatches than problems.
    """
    places = list(range(count))
    random.Random(seed_for(seed, "minibatches", step)).shuffle(places)
    cuts = [index * count // min(minibatches, count) for index in range(min(minibatches, count) + 1)]
    return [sorted(places[first:end]) for first, end in pairwise(cuts)]


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    # Sorting by random(): the one sequence Python promises to keep, and a run's identity leans on this order.
    rng = random.Random(seed_for(seed, "order of problems", epoch))
    draws = [rng.random() for _ in range(size)]
    return tuple(sorted(range(size), key=draws.__getitem__))
