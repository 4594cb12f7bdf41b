"""A shared store is not trusted: whatever stands in it, nothing is lost here, and nothing outside is touched."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs import base_model
from siri.runs.advancing import advance
from siri.runs.run import Run, create_run
from siri.store.entries import FORMAT, WEIGHTS, CorruptEntryError, Manifest, describe_files, file_sha256
from siri.store.files import seal, unseal
from siri.store.remote import Depot, open_depot
from siri.store.replicated import STORE_URL, TRUST, SharedStore, open_store
from tests.conftest import prepare, tiny

KEY, OTHER = "ab" * 32, "cd" * 32
SHORT = ("schedule.cycles=1", "problems.train_size=32")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that machines share."""
    monkeypatch.setenv(STORE_URL, f"file://{tmp_path / 'bucket'}")
    monkeypatch.setattr("siri.store.replicated.LOOK_SECONDS", 0.0)
    return tmp_path / "bucket"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder outside; it must be as it was in the end."""
    folder = tmp_path / "victim" / ".ssh"
    folder.mkdir(parents=True)
    (folder / "id").write_text("secret")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["id"]
    assert (folder / "id").read_text() == "secret"


def shared(folder: Path) -> SharedStore:
    store = open_store(Home(folder))
    assert isinstance(store, SharedStore)
    return store


def sent(store: SharedStore, key: str = KEY, **extra: str) -> Manifest:
    """An entry that is in the shared store."""
    folder = store.scratch()
    for name, text in ({WEIGHTS: "weights", "steps.jsonl": ""} | extra).items():
        (folder / name).write_text(text)
    files = describe_files(folder)
    store.commit(folder, Manifest(key, 1, OTHER, "snapshot", files[WEIGHTS], files, {}))
    return store.find(key).manifest  # type: ignore[union-attr]


def rewritten(bucket: Path, fields: dict[str, Any], of: str = KEY) -> None:
    """Change a manifest in the shared store as somebody would who knows how its sum is made."""
    path = bucket / "manifests" / f"{of}.json"
    path.write_text(seal(unseal(path.read_text()) | fields))
    open_depot(f"file://{bucket}")._known = (0.0, set())


SHA = hashlib.sha256(b"").hexdigest()
MADE_UP: list[tuple[str, Any]] = [
    *(("key", value) for value in ("../../victim/.ssh", "/etc", OTHER, KEY.upper(), KEY[:-1], "", None, 3, [KEY])),
    *(("parent", value) for value in ("../../victim/.ssh", KEY, "", 3, OTHER.upper(), [OTHER])),
    *(("step", value) for value in (-1, 1.5, True, "1", None, 10**30)),
    *(("role", value) for value in ("removed", "", None, 3)),
    *(("weights_sha256", value) for value in (SHA, "", None, KEY[:-1])),
    *(("facts", value) for value in ([], None, "text", {"budget": "\x1b[2J"}, {"budget": -1}, {"numerics": []})),
    *(("format", value) for value in (0, -1, "2", 2.0, None, True)),
    *(("files", value) for value in ([], None, "text", {WEIGHTS: 3}, {WEIGHTS: "../../x"}, {"": SHA})),
    *(
        ("files", {name: SHA})
        for name in (".", "..", "/etc/passwd", "../escaped", "a/../../b", "a//b", "a/", "a\\b", "a\x00b", "a\nb")
    ),
    *(("files", {name: SHA}) for name in ("manifest.json", "Manifest.JSON", "x" * 256, "\u202ename")),
    ("surplus", 1),
]


@pytest.mark.parametrize(("field", "value"), MADE_UP, ids=lambda value: repr(value)[:40])
def test_no_field_of_a_manifest_is_believed(
    field: str, value: Any, bucket: Path, victim: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent(shared(tmp_path / "one"))
    rewritten(bucket, {field: value})
    two = shared(tmp_path / "two")
    before = {path for path in tmp_path.rglob("*") if bucket not in path.parents}
    assert two.fetch(KEY) is None
    assert "is corrupt in file://" in caplog.text
    assert {path for path in tmp_path.rglob("*") if bucket not in path.parents} == before


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "[" * 10**5, '{"key": 1', "\ufffe", " " * (1 << 21), '{"a": ' + "9" * 5000 + "}"]
)
def test_a_manifest_that_is_none_is_dropped(text: str, bucket: Path, tmp_path: Path) -> None:
    sent(shared(tmp_path / "one"))
    (bucket / "manifests" / f"{KEY}.json").write_text(text)
    assert shared(tmp_path / "two").fetch(KEY) is None


def test_every_flipped_bit_of_a_manifest_is_seen(bucket: Path, tmp_path: Path) -> None:
    store = shared(tmp_path / "one")
    sent(store)
    path = store._folder(KEY) / "manifest.json"
    text = path.read_bytes()
    known = store.find(KEY)
    for place in range(len(text)):
        for bit in range(8):
            flipped = text[:place] + bytes([text[place] ^ (1 << bit)]) + text[place + 1 :]
            path.write_bytes(flipped)
            with suppress(CorruptEntryError):
                found = store._read(KEY)
                assert found in (None, known), "left alone as one of a newer format, or only its layout differs"


# A newer format


def test_what_a_newer_version_has_sent_is_left_alone_and_named(
    bucket: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent(shared(tmp_path / "one"))
    path = bucket / "manifests" / f"{KEY}.json"
    path.write_text(json.dumps({"format": FORMAT + 1, "of": "another kind"}))
    text = path.read_text()
    two = shared(tmp_path / "two")
    assert two.fetch(KEY) is None
    assert f"snapshot {KEY[:12]} in file://" in caplog.text
    assert f"made by a newer SIRI (format {FORMAT + 1}), this one reads up to {FORMAT}: left alone" in caplog.text
    sent(two)
    two.remove_rolling(KEY)
    two.promote(KEY)
    two.share()
    assert path.read_text() == text
    assert (bucket / "entries" / KEY / file_sha256(two._folder(KEY) / WEIGHTS)).exists()


def test_what_a_newer_version_has_stored_here_is_left_alone_and_named(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    run = prepare(tiny(*SHORT), home)
    list(advance(run, 8))
    path = run.store._folder(run.keys[8]) / "manifest.json"
    path.write_text(json.dumps({"format": FORMAT + 1}))
    assert run.store.find(run.keys[8]) is None
    assert "left alone" in caplog.text
    assert len([*run.store.entries()]) == 2
    with pytest.raises(InputError, match=rf"^snapshot {run.keys[8][:12]}: made by a newer SIRI .*; update SIRI"):
        list(advance(run, 8))
    assert path.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({"format": FORMAT + 1}), rf"made by a newer SIRI \(format {FORMAT + 1}\)"),
        (json.dumps({"format": 1}), r"made by an older SIRI \(format 1\)"),
        ("{}", "format.json cannot be read"),
        ('{"format": "2"}', "format.json cannot be read"),
        ("[" * 10**5, "format.json cannot be read"),
        (" " * (1 << 21), "format.json cannot be read"),
    ],
)
def test_a_shared_store_says_its_format(text: str, said: str, bucket: Path) -> None:
    Depot(f"file://{bucket}")
    assert json.loads((bucket / "format.json").read_text()) == {"format": FORMAT}
    (bucket / "format.json").write_text(text)
    with pytest.raises(InputError, match=rf"^store=file://{bucket}: {said}"):
        Depot(f"file://{bucket}")


# Links and sizes


@pytest.mark.parametrize("name", ["manifests/KEY.json", "entries/KEY", "entries/KEY/SHA", "entries", "leases", "texts"])
def test_no_link_in_a_shared_folder_is_followed(name: str, bucket: Path, victim: Path, tmp_path: Path) -> None:
    one = shared(tmp_path / "one")
    manifest = sent(one)
    path = bucket / name.replace("KEY", KEY).replace("SHA", manifest.files[WEIGHTS])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(victim / "id" if path.suffix == ".json" or name.endswith("SHA") else victim)
    two = shared(tmp_path / "two")
    for act in (lambda: two.fetch(KEY), lambda: one.promote(KEY), lambda: sent(two), lambda: two.share()):
        with suppress(InputError):
            act()


def test_a_link_among_the_files_of_an_entry_is_damage(bucket: Path, victim: Path, tmp_path: Path) -> None:
    store = shared(tmp_path / "one")
    sent(store)
    path = store._folder(KEY) / WEIGHTS
    same = tmp_path / "same"
    path.rename(same)
    path.symlink_to(same)
    shutil.rmtree(bucket / "manifests")
    store.depot._known = (0.0, set())
    assert store.verified(KEY) is None


def test_what_does_not_fit_on_the_disk_is_not_brought(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(shared(tmp_path / "one"))
    two = shared(tmp_path / "two")
    monkeypatch.setattr(Depot, "_size", lambda self, path: 10**18 if "/entries/" in path else os.stat(path).st_size)
    with pytest.raises(InputError, match=rf"^disk full: {KEY[:12]} of file://.* takes 2,000,000,000,000,000,000 bytes"):
        two.fetch(KEY)
    assert two.find(KEY) is None


# Pickles


def test_pickles_are_not_brought_unless_the_store_is_trusted(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent(shared(tmp_path / "one"), **{"state.verl.optim_world_size_1_rank_0.pt": "pickle"})
    two = shared(tmp_path / "two")
    found = two.fetch(KEY)
    assert found is not None
    assert (found.manifest.role, sorted(found.manifest.files)) == ("thinned", [WEIGHTS, "steps.jsonl"])
    assert f"{TRUST}=1 brings it all" in caplog.text
    assert two.fetch(KEY) == found
    monkeypatch.setenv(TRUST, "1")
    whole = two.fetch(KEY)
    assert whole is not None
    assert whole.full


def test_no_pickles_take_the_place_of_what_is_here(bucket: Path, tmp_path: Path) -> None:
    one, two = shared(tmp_path / "one"), shared(tmp_path / "two")
    sent(one, **{"state.verl.optim_world_size_1_rank_0.pt": "pickle"})
    folder = two.scratch()
    (folder / WEIGHTS).write_text("other weights")
    files = describe_files(folder)
    two.commit(folder, Manifest(KEY, 1, OTHER, "snapshot", files[WEIGHTS], files, {}))
    kept = two.verified(KEY)
    assert kept is not None
    assert kept.manifest.files == files


# Notes of bases, claims, evaluations, lines


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", seal({"key": "../../victim/.ssh"}), seal({"key": 3}), seal({"key": OTHER}), "[" * 10**5,
     seal({}), seal({"key": KEY, "more": 1}), json.dumps({"key": KEY})],
)  # fmt: skip
def test_a_note_of_a_base_that_leads_nowhere_is_replaced(text: str, bucket: Path, victim: Path, tmp_path: Path) -> None:
    first = prepare(tiny(*SHORT), Home(tmp_path / "one"))
    [note] = (bucket / "texts").iterdir()
    note.write_text(text)
    second = prepare(tiny(*SHORT), Home(tmp_path / "two"))
    assert second.base == first.base
    assert unseal(note.read_text()) == {"key": first.base}


def test_a_note_of_a_base_that_names_a_snapshot_is_not_believed(bucket: Path, tmp_path: Path) -> None:
    first = prepare(tiny(*SHORT), Home(tmp_path / "one"))
    list(advance(first, 4))
    [note] = (bucket / "texts").iterdir()
    note.write_text(seal({"key": first.keys[4]}))
    assert prepare(tiny(*SHORT), Home(tmp_path / "two")).base == first.base


@pytest.mark.parametrize("name", ["²", "-1", "1" * 200, "0000001", "x", "00000001.beat", "00000009.free"])
def test_what_is_no_claim_does_not_stand_in_the_way(name: str, bucket: Path) -> None:
    depot = Depot(f"file://{bucket}")
    (bucket / "leases" / "stage").mkdir()
    (bucket / "leases" / "stage" / name).write_bytes(b"x" * (1 << 21))
    claim = depot.claim("stage")
    assert claim is not None
    claim.release()


def evaluated(folder: Path) -> tuple[Run, Evaluation]:
    config = tiny(*SHORT)
    list(base_model.make_base(config, Home(folder)))
    run = create_run(config, Home(folder))
    return run, Evaluation(run, "base", "dev")


@pytest.mark.parametrize("name", ["report.json", "samples.parquet"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"accuracy": 1}', b"PAR1", b"[" * 10**5])
def test_an_evaluation_that_is_none_is_made_again(name: str, content: bytes, bucket: Path, tmp_path: Path) -> None:
    _, ours = evaluated(tmp_path / "one")
    list(measure(ours))
    manifest, sha = ours.find().manifest, hashlib.sha256(content).hexdigest()  # type: ignore[union-attr]
    part = bucket / "evaluations"
    (part / "entries" / ours.key / sha).write_bytes(content)
    rewritten(part, {"files": {**manifest.files, name: sha}}, ours.key)
    _, theirs = evaluated(tmp_path / "two")
    list(measure(theirs))
    assert theirs.report() == ours.report()


@pytest.mark.parametrize("line", ["[]", "3", "{", '{"step": 1}', '{"step": "1", "key": 3, "time": 0}', "[" * 10**5])
def test_lines_that_are_none_are_damage(line: str, bucket: Path, tmp_path: Path) -> None:
    first = prepare(tiny(*SHORT), Home(tmp_path / "one"))
    list(advance(first, 8))
    manifest, content = first.snapshot("c1-low").manifest, f"{line}\n".encode()  # type: ignore[union-attr]
    sha = hashlib.sha256(content).hexdigest()
    (bucket / "entries" / first.keys[4] / sha).write_bytes(content)
    rewritten(bucket, {"files": {**manifest.files, "steps.jsonl": sha}}, first.keys[4])
    second = prepare(tiny(*SHORT), Home(tmp_path / "two"))
    list(advance(second, 8))
    assert second.snapshot("c1-high") is not None
