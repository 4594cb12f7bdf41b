"""Whatever lies where something is read from outside: a value comes of it, or one line that says what is wrong."""

import http.server
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siri.errors import LONGEST, InputError
from siri.platform import running
from siri.reading import PROBLEMS, RECORD, SETTINGS, read_regular
from tests.engines.test_pretrained import llama, write_folder
from tests.readers import CALLS, READERS, Reader, calls_that_read, readers_of_a_model

MODEL = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
NAMES = [*READERS, *MODEL, "an index of weights", "a shard"]
FILES = [name for name in NAMES if name not in READERS or READERS[name].file]
OF_LIBRARIES = ("metrics.jsonl", "steps.jsonl", "journal of a study")
"""Files that only SIRI itself and Optuna write, by names that a stranger cannot take, and read while they grow."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged name of a folder may be another one, here: it is made below a folder that goes."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    folder = tmp_path_factory.mktemp("model")
    write_folder(folder, llama())
    return READERS | readers_of_a_model(folder)


def test_every_call_that_reads_is_listed_with_what_stands_for_it() -> None:
    found = set(calls_that_read())
    assert sorted(found - CALLS.keys()) == [], "new readers: list them in tests/readers.py"
    assert sorted(CALLS.keys() - found) == [], "readers that are gone"
    assert {said for said in CALLS.values() if " " not in said} <= {*NAMES}


def lay(reader: Reader, folder: Path) -> Path:
    """Put what lies beside the file into a folder; where the file itself belongs."""
    for name, content in reader.beside.items():
        (folder / name).write_bytes(content)
    path = folder / (reader.file or "content")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def try_to_read(reader: Reader, path: Path) -> None:
    """Read it, and see that whatever is refused is refused in one line."""
    said = ""
    try:
        reader.read(path)
    except InputError as error:
        said = str(error)
    except reader.errors:
        pass
    assert "\n" not in said
    assert len(said) <= LONGEST + 3


@pytest.mark.parametrize("name", NAMES)
def test_the_undamaged_one_is_read(name: str, readers: dict[str, Reader], tmp_path: Path) -> None:
    path = lay(readers[name], tmp_path)
    path.write_bytes(readers[name].sample)
    if name == "SIRI_STUDY_URL":
        with pytest.raises(InputError, match=r"SIRI_STUDY_URL=mysql://127.0.0.1:1/x: "):
            readers[name].read(path)
        return
    assert readers[name].read(path) is not None or name == "format.json"


# Damaged contents

SURROGATES = (b'"\\ud800"', b"\\udfff", b"\xed\xa0\x80", b"\xff\xfe", b"\x80")
NUMBERS = (b"1" * 5000, b"NaN", b"-Infinity", b"1e999", b".inf", b"-1", b"0.5", b"9" * 30, b"010", b"null", b"true")
INSERTED = (*SURROGATES, b"\0", b"[", b"{", b'"', b"\n", b": ")
LETTERS = b"abcdefghijklmnopqrstuvwxyz"
WHOLE = (
    b"", b"\n", b"{}", b"[]", b"null", b"1", b'"x"', b"true", b"NaN", b"[[]]", b'{"": null}', b"[1]\n2", b"\0" * 9,
    b"[" * 200_000, b'{"a":' * 200_000, b"- " * 9_000, b"1" * 5000, b"[" + b"1" * 5000 + b"]", b'"\\ud800"',
    b"PAR1PAR1", b"PAR1" + b"\xff" * 40 + b"PAR1", b"\xff" * 64, b"a: &a [*a]", b"~", b"~nobody/x",
    b"!!python/name:os.x 1", b"\xef\xbb\xbf",
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, sample: bytes) -> bytes:
    """A sample with one to three damages, or something else altogether."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(WHOLE))
    content = sample
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "drop", "insert", "number", "utf-16", "bom", "twice", "word"]))
        if kind == "flip" and content:
            content = content[:place] + bytes([content[place] ^ (1 << draw(st.integers(0, 7)))]) + content[place + 1 :]
        elif kind == "cut":
            content = content[:place]
        elif kind == "drop":
            content = content[:place] + content[place + draw(st.integers(1, 20)) :]
        elif kind == "insert":
            content = (
                content[:place] + draw(st.sampled_from([*SURROGATES, b"\0", b"[", b"{", b'"', b"\n"])) + content[place:]
            )
        elif kind == "number":
            content = _exchange(content, b"0123456789", place, draw(st.sampled_from(NUMBERS)))
        elif kind == "word":
            content = _exchange(
                content, b"abcdefghijklmnopqrstuvwxyz", place, draw(st.sampled_from([*SURROGATES, b"1", b""]))
            )
        elif kind == "utf-16":
            content = content.decode("latin-1").encode("utf-16")
        elif kind == "bom":
            content = b"\xef\xbb\xbf" + content
        else:
            content += content
    return content


def _exchange(content: bytes, letters: bytes, place: int, other: bytes) -> bytes:
    """Put something in place of the first run of letters from a place on."""
    start = next((index for index in range(place, len(content)) if content[index] in letters), len(content))
    end = next((index for index in range(start, len(content)) if content[index] not in letters), len(content))
    return content[:start] + other + content[end:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")  # a library's words about what it is given are not ours
def test_damaged_content_is_a_value_or_one_line(name: str, readers: dict[str, Reader], tmp_path: Path) -> None:
    reader = readers[name]
    path = lay(reader, tmp_path)

    @settings(max_examples=reader.examples, suppress_health_check=[*HealthCheck])
    @given(damaged(reader.sample))
    def check(content: bytes) -> None:
        lay(reader, tmp_path)  # what was damaged before may have been moved aside
        path.write_bytes(content)
        try_to_read(reader, path)

    check()


# What is no file that can be read


def put_in_place(path: Path, kind: str, sample: bytes) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "terabyte of holes":
        path.write_bytes(sample)
        os.truncate(path, 1 << 40)
    elif kind != "nothing":
        path.symlink_to({"device": "/dev/zero", "broken link": "nowhere", "loop of links": path.name}[kind])


@pytest.mark.parametrize(
    "kind", ["folder", "pipe", "device", "broken link", "loop of links", "nothing", "terabyte of holes"]
)
@pytest.mark.parametrize("name", [name for name in FILES if name not in OF_LIBRARIES])
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_file_is_refused_in_one_line(
    name: str, kind: str, readers: dict[str, Reader], tmp_path: Path
) -> None:
    path = lay(readers[name], tmp_path)
    path.unlink(missing_ok=True)
    put_in_place(path, kind, readers[name].sample)
    try_to_read(readers[name], path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"a" * 1000)
    assert read_regular(path, RECORD) == b"a" * 1000
    with pytest.raises(ValueError, match=r"it has 1,000 bytes, 999 are allowed"):
        read_regular(path, 999)
    growing = threading.Event()

    def grow() -> None:
        while not growing.is_set():
            with path.open("ab") as file:
                file.write(b"a" * 4096)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(ValueError, match="it changed while it was read"):
            any(read_regular(path, PROBLEMS) == b"" for _ in range(10_000))
    finally:
        growing.set()
        writer.join()
    assert SETTINGS < RECORD < PROBLEMS


# Servers


@pytest.mark.filterwarnings("ignore")
def test_whatever_a_server_answers_nothing_is_known_of_it_or_something(tmp_path: Path) -> None:
    said: list[bytes] = [b""]

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(said[0])))
            self.end_headers()
            self.wfile.write(said[0])

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    worker = running.Member("worker 1", os.getpid(), 0, None, None)
    up = running.Running(1, address, address, True, (worker,))
    state = {"state_details": {"pause_timeout": None}, "message": None}
    good = json.dumps([{"name": "1", "status": "ONLINE", "state_id": "x", "state": state}]).encode()

    @settings(max_examples=60, suppress_health_check=[*HealthCheck])
    @given(damaged(good))
    def check(content: bytes) -> None:
        said[0] = content
        running.health(up, "a:b")
        running.unattended(address, "a:b")

    try:
        said[0] = good
        assert running.health(up, "a:b") == {"worker 1": True}
        assert running.unattended(address, "a:b") == {"x"}
        check()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
