"""Entries as a state machine: whatever two processes and two machines do in turn, on views as old as may be."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from siri.store.entries import MANIFEST, WEIGHTS, Entry, Manifest, Role, Store, describe_files, file_sha256, verify
from siri.store.remote import Depot
from siri.store.replicated import SharedStore

KEYS = [letter * 64 for letter in "ab"]
View = Literal["one", "other", "far"]
"""Two processes of one machine, and one of another; all share a place."""
HOMES: dict[View, str] = {"one": "here", "other": "here", "far": "there"}
views = st.sampled_from(list(HOMES))
keys = st.sampled_from(KEYS)
STATE = "optimizer.safetensors"


class Entries(RuleBasedStateMachine):
    """Transitions against a model that knows of every key on every machine what it must be."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="siri-states-"))
        depot = Depot(f"file://{self.folder / 'bucket'}")
        self.stores: dict[View, SharedStore] = {
            view: SharedStore(self.folder / home, depot) for view, home in HOMES.items()
        }
        self.model: dict[str, dict[str, Role]] = {"here": {}, "there": {}}
        """Machine -> key -> role."""
        self.bucket: dict[str, Role] = {}
        self.seen: list[tuple[str, Entry]] = []
        """Machine and entry, as somebody has seen it at some time."""

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def made(self, store: Store, key: str, role: Role) -> tuple[Path, Manifest]:
        """What an engine has made: the same bytes for the same key, always."""
        folder = store.scratch()
        (folder / WEIGHTS).write_text(f"weights of {key}")
        (folder / STATE).write_text(f"state of {key}")
        (folder / "steps.jsonl").write_text('{"step": 1}\n')
        parent = "d" * 64
        return folder, Manifest(key, 1, parent, role, file_sha256(folder / WEIGHTS), describe_files(folder), {})

    def become(self, home: str, key: str, role: Role | None) -> None:
        if role is None:
            self.model[home].pop(key, None)
        else:
            self.model[home][key] = role

    # Transitions

    @rule(view=views, key=keys, role=st.sampled_from(["rolling", "snapshot"]))
    def commit(self, view: View, key: str, role: Role) -> None:
        store, home = self.stores[view], HOMES[view]
        before = self.model[home].get(key)
        entry = store.commit(*self.made(store, key, role))
        after: Role = "snapshot" if "snapshot" in (role, before) or before == "thinned" else "rolling"
        self.become(home, key, after)
        there = self.bucket.setdefault(key, after)  # what stands here now is sent
        if after == "snapshot" and there == "rolling":
            self.bucket[key] = "snapshot"
        assert entry.manifest.key == key

    @rule(view=views, key=keys)
    def promote(self, view: View, key: str) -> None:
        home = HOMES[view]
        promoted = self.stores[view].promote(key)
        if self.bucket.get(key) == "rolling":
            self.bucket[key] = "snapshot"
        if self.model[home].get(key) == "rolling":
            self.become(home, key, "snapshot")
        assert (promoted is None) == (key not in self.model[home])

    @precondition(lambda self: self.seen)
    @rule(ago=st.integers(0, 5), other=st.booleans())
    def thin(self, ago: int, other: bool) -> None:
        home, entry, store = self.recalled(ago, other)
        key, unchanged = entry.manifest.key, self.model[home].get(entry.manifest.key) == entry.manifest.role
        thinned = store.thin(key, entry.manifest)
        if unchanged and entry.manifest.role in ("snapshot", "thinned"):
            self.become(home, key, "thinned")
        else:
            assert thinned is None

    @precondition(lambda self: self.seen)
    @rule(ago=st.integers(0, 5), other=st.booleans())
    def collect(self, ago: int, other: bool) -> None:
        home, entry, store = self.recalled(ago, other)
        key, unchanged = entry.manifest.key, self.model[home].get(entry.manifest.key) == entry.manifest.role
        assert store.bury(key, entry.manifest) == unchanged
        if unchanged:
            self.become(home, key, None)

    def recalled(self, ago: int, other: bool) -> tuple[str, Entry, Store]:
        """An entry as it was seen some time ago, and a process of its machine."""
        home, entry = self.seen[-1 - ago % len(self.seen)]
        view: View = "far" if home == "there" else "other" if other else "one"
        return home, entry, self.stores[view]

    @rule(view=views, key=keys)
    def remove_rolling(self, view: View, key: str) -> None:
        home = HOMES[view]
        here, there = self.model[home].get(key, "rolling"), self.bucket.get(key, "rolling")
        self.stores[view].remove_rolling(key)
        if here == there == "rolling":
            self.bucket.pop(key, None)
            self.become(home, key, None)

    @rule(view=views, key=keys, name=st.sampled_from([WEIGHTS, "steps.jsonl", MANIFEST]), cut=st.booleans())
    def damage(self, view: View, key: str, name: str, cut: bool) -> None:
        """A damaged entry is moved aside by whoever reads it, and brought from where it is whole."""
        home, store = HOMES[view], self.stores[view]
        if key not in self.model[home]:
            return
        path = store._folder(key) / name
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-3] if cut else content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        self.become(home, key, None)
        assert store.find(key) is None if name == MANIFEST else store.verified(key) is None

    @rule(view=views, key=keys)
    def fetch(self, view: View, key: str) -> None:
        home, store = HOMES[view], self.stores[view]
        store.depot._known = (0.0, set())
        before, there = self.model[home].get(key), self.bucket.get(key)
        found = store.fetch(key)
        if there is not None and before in (None, "thinned"):
            self.become(home, key, "snapshot" if before == "thinned" else there)
        assert (None if found is None else found.manifest.role) == self.model[home].get(key)

    @rule(view=views)
    def share(self, view: View) -> None:
        store = self.stores[view]
        store.depot._known = (0.0, set())
        store.share()
        for key, role in self.model[HOMES[view]].items():
            if role == "snapshot":
                self.bucket[key] = "snapshot"

    # What holds throughout

    @invariant()
    def somebody_looks(self) -> None:
        for view, store in self.stores.items():
            if view != "other":
                found = [(HOMES[view], entry) for entry in store.entries()]
                self.seen += [each for each in found if each not in self.seen[-4:]]

    @invariant()
    def every_key_is_what_the_model_says_with_its_own_bytes(self) -> None:
        for view, store in self.stores.items():
            model = self.model[HOMES[view]]
            found = {entry.manifest.key: entry for entry in store.entries()}
            assert {key: entry.manifest.role for key, entry in found.items()} == model
            for key, entry in found.items():
                verify(entry)
                assert (entry.folder / WEIGHTS).read_text() == f"weights of {key}"
                assert (STATE in entry.manifest.files) == entry.full
                assert {path.name for path in entry.folder.iterdir()} == {*entry.manifest.files, MANIFEST}

    @invariant()
    def nothing_is_left_of_what_is_gone(self) -> None:
        for view, store in self.stores.items():
            folders = {path.name for path in (store.root / "entries").glob("*/*")}
            assert folders == self.model[HOMES[view]].keys()
            assert not [*(store.root / "scratch").iterdir()]
            assert not [*(store.root / "leases").iterdir()]
            for path in (store.root / "removed").glob("*"):
                assert store.recall(path.name) is not None

    @invariant()
    def the_bucket_has_what_was_sent(self) -> None:
        depot = self.stores["one"].depot
        told = {key: self.stores["one"]._told(key) for key in KEYS}
        assert {key: found.role for key, found in told.items() if found is not None} == self.bucket
        for key, found in told.items():
            for sha in found.files.values() if found is not None else ():
                assert depot.fs.exists(f"{depot.root}/entries/{key}/{sha}")


TestEntries = Entries.TestCase
TestEntries.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
