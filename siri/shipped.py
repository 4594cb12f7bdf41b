"""The YAML files that ship with SIRI, by name; cheap, so that `--help` can list them."""

from importlib import resources


def names(package: str) -> list[str]:
    """Names of a package's YAML files, without the suffix, sorted."""
    entries = (entry.name for entry in resources.files(package).iterdir())
    return sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml"))
