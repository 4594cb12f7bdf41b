"""The YAML files that ship with SIRI, by name; cheap, so that `--help` can list them."""

from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"
BENCHMARKS = Path(__file__).parent / "benchmarks"
PUBLISHED = Path(__file__).parent / "published"
SWEEPS = Path(__file__).parent.parent / "sweeps"


def names(folder: Path) -> list[str]:
    """Names of a folder's YAML files, without the suffix, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))
