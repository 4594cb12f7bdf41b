"""A scripted policy that answers to the budget as a reasoning model would: for tests and dry runs."""

from siri.engines.scripted.engine import ScriptedEngine
from siri.engines.scripted.process import ScriptedProcessEngine

__all__ = ["ScriptedEngine", "ScriptedProcessEngine"]
