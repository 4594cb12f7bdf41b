"""The methods by name: each is what it changes in GRPO."""

from siri.methods.grpo import GRPO
from siri.methods.kimi import KIMI
from siri.methods.method import Method
from siri.methods.siri import SIRI

METHODS: dict[str, Method] = {
    "grpo": GRPO,
    "siri": SIRI,
    "kimi": KIMI,
}

__all__ = ["METHODS", "Method"]
