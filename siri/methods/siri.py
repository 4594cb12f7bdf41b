"""SIRI (arXiv 2509.25176): GRPO under a budget that the schedule moves down and up; nothing else changes."""

from dataclasses import replace

from siri.methods.grpo import GRPO

SIRI = replace(GRPO, name="siri")
