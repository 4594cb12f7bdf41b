"""Units of measure: what a phrase behind a number measures, and how many of the basic unit it is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_TABLE = """
length 1 m meter metre
length 1/1000 mm millimeter millimetre
length 1/100 cm centimeter centimetre
length 1/10 dm decimeter
length 1000 km kilometer kilometre
length 254/10000 in inch inches
length 3048/10000 ft foot feet
length 9144/10000 yd yard
length 1609344/1000 mi mile
mass 1 g gram
mass 1/1000 mg milligram
mass 1000 kg kilogram
mass 1000000 ton tonne
mass 45359237/100000 lb pound
mass 45359237/1600000 oz ounce
time 1 s sec second
time 1/1000 ms millisecond
time 60 min minute
time 3600 h hr hour
time 86400 day
time 604800 week
money 1 dollar usd buck
money 1/100 cent penny pennies
euro 1 euro eur
sterling 1 gbp
rupee 1 rs rupee inr
percent 1 percent
angle-degree 1 degree deg
angle 1 rad radian
volume 1/1000 l liter litre
volume 1/1000000 ml milliliter millilitre
volume 3785411784/1000000000000 gallon gal
energy 1 j joule
energy 1000 kj kilojoule
force 1 n newton
power 1 w watt
power 1000 kw kilowatt
voltage 1 v volt
resistance 1 ohm
frequency 1 hz hertz
amount 1 mol mole
pressure 1 pa pascal
information 1 bit
information 8 byte
"""
_SHORTHAND = {"mph": ("mile", "hour"), "kph": ("km", "hour"), "kmh": ("km", "hour"), "mps": ("m", "s")}
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
RAISED = {"squared": 2, "cubed": 3}
MULTIPLES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}


def _read_table() -> dict[str, tuple[str, Fraction]]:
    found = {}
    for line in _TABLE.strip().splitlines():
        dimension, factor, *names = line.split()
        for name in names:
            found[name] = found[name + "s"] = (dimension, Fraction(factor))
    del found["ins"], found["gs"], found["js"], found["ns"], found["ws"], found["vs"], found["pas"]
    return found


UNITS = _read_table()
UNIT_WORDS = frozenset({*UNITS, *_SHORTHAND, *_POWERS, *MULTIPLES, "per", "unit", "units"})


@dataclass(frozen=True)
class Unit:
    """What a number counts: known dimensions with a factor, or the words of something that no table has."""

    dimensions: tuple[tuple[str, int], ...]
    factor: Fraction
    words: tuple[str, ...] = ()


UNNAMED, _UNNAMED = "unit", frozenset(["unit", "units"])
"""The dimension of `square units`, which may be any unit of length; and its words."""
DEGREE, PERCENT = Unit((("angle-degree", 1),), Fraction(1)), Unit((("percent", 1),), Fraction(1))
CURRENCIES = {r"\$": "dollar", "€": "euro", "£": "gbp", "₹": "rupee", r"\pounds": "gbp", r"\euro": "euro"}
_PIECE = re.compile(r"[A-Za-z]+|\^\s*\{?\s*(-?\s*\d{1,3})\s*\}?|/|\S")


def read_unit(pieces: Sequence[str]) -> Unit | None:
    """The unit of a phrase, such as `km / h` or `square inches`; None for one that says nothing ("units")."""
    dimensions: dict[str, int] = {}
    factor, sign, before, known = Fraction(1), 1, 1, True
    words = []
    last: tuple[str, Fraction, int] | None = None
    for found in _PIECE.finditer(" ".join(pieces)):
        piece = found[0].lower()
        if found[1] or piece in ("squared", "cubed"):
            power = int(found[1].replace(" ", "")) if found[1] else _POWERS[piece]
            if last is None or not 0 < abs(power) <= 4:
                known = False
                continue
            dimensions[last[0]] += last[2] * (power - 1)
            factor *= last[1] ** (last[2] * (power - 1))
        elif piece in ("/", "per"):
            sign = -1
        elif piece in _POWERS:
            before = _POWERS[piece]
        elif piece in _UNNAMED:
            last = (UNNAMED, Fraction(1), sign * before)
            dimensions[UNNAMED] = dimensions.get(UNNAMED, 0) + sign * before
            before = 1
        elif piece in UNITS or piece in _SHORTHAND:
            for name in _SHORTHAND.get(piece, (piece,)):
                dimension, size = UNITS[name]
                last = (dimension, size, sign * before)
                dimensions[dimension] = dimensions.get(dimension, 0) + sign * before
                factor *= size ** (sign * before)
                sign, before = (-1, 1) if piece in _SHORTHAND else (sign, 1)
        elif piece[0] in "^0123456789":
            known = False
        elif piece.isalpha():
            words.append(piece.removesuffix("s"))
            known = False
    if words or not known:
        return Unit((), Fraction(1), tuple(words) or ("?",))
    if dimensions == {UNNAMED: 1}:
        return None
    return _as_volume(dimensions, factor) if dimensions else None


def _as_volume(dimensions: dict[str, int], factor: Fraction) -> Unit:
    """A litre is a cubic decimetre: volumes are lengths cubed."""
    volume = dimensions.pop("volume", 0)
    if volume:
        dimensions["length"] = dimensions.get("length", 0) + 3 * volume
    return Unit(tuple(sorted((name, power) for name, power in dimensions.items() if power)), factor)
