"""An entry of a store: the folder that holds it, and its manifest."""

from dataclasses import dataclass
from pathlib import Path

from siri.store.manifest import Manifest
from siri.store.tombstones import is_state


@dataclass(frozen=True)
class Entry:
    """A stored checkpoint: the folder that holds it, and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def full(self) -> bool:
        """Whether training can go on from it."""
        return self.manifest.role != "thinned"

    @property
    def size(self) -> int:
        """Bytes on disk; files that have gone meanwhile count for nothing."""
        return sum(size_of(self.folder / name) for name in self.manifest.files)

    @property
    def state_size(self) -> int:
        """Bytes that thinning frees."""
        return sum(size_of(self.folder / name) for name in self.manifest.files if is_state(name))


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when it has gone."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
