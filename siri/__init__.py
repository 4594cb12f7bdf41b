"""SIRI: reinforcement learning of reasoning models under an oscillating length budget (arXiv 2509.25176)."""

__version__ = "0.1.0"

import logging

from siri.terminal import Safe

logging.getLogger("siri").addFilter(Safe())
