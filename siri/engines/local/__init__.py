"""The local engine: torch in this process, on a CPU or one GPU."""

from siri.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
