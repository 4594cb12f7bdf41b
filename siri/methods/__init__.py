"""The methods by name: each is what it changes in GRPO."""

from siri.methods.dapo import DAPO
from siri.methods.dler import DLER
from siri.methods.dot import DOT
from siri.methods.drpo import DRPO
from siri.methods.grpo import GRPO
from siri.methods.gspo import GSPO
from siri.methods.hapo import HAPO
from siri.methods.kimi import KIMI
from siri.methods.l1_exact import L1_EXACT
from siri.methods.laser_d import LASER_D
from siri.methods.lead import LEAD
from siri.methods.method import Method
from siri.methods.pear import PEAR
from siri.methods.siri import SIRI
from siri.methods.toggle import TOGGLE

METHODS: dict[str, Method] = {
    "grpo": GRPO,
    "siri": SIRI,
    "dapo": DAPO,
    "l1-exact": L1_EXACT,
    "hapo": HAPO,
    "laser-d": LASER_D,
    "dot": DOT,
    "drpo": DRPO,
    "gspo": GSPO,
    "dler": DLER,
    "pear": PEAR,
    "toggle": TOGGLE,
    "lead": LEAD,
    "kimi": KIMI,
}

__all__ = ["METHODS", "Method"]
