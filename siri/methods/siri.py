"""SIRI (arXiv 2509.25176): GRPO under a budget that the schedule moves down and up; nothing else changes."""

from __future__ import annotations

from dataclasses import replace

from siri.methods.grpo import GRPO

SIRI = replace(
    GRPO,
    name="siri",
    summary="GRPO under a budget that the schedule moves down and up; nothing else changes",
    formula="as grpo, with L(t) of `schedule`: stair, cosine or stair-cosine between min_budget and max_budget",
    source="arXiv 2509.25176",
    evidence="formulas and settings read in the paper; it states neither the group size nor the stair's formula",
)
