"""Model folders from strangers: what could run code or lead elsewhere is refused in one line, and nothing of it ran.

Every hostile file here is real: opened by the library that it is made for, it would leave a marker.
"""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from siri.engine import SampleRequest
from siri.engines.local.engine import LocalEngine
from siri.engines.local.pretrained import load_pretrained
from siri.engines.model_folder import files_beside, require_data
from siri.engines.verl.launch import check_recipe
from siri.engines.vllm.sampler import VllmSampler
from siri.errors import InputError
from siri.problems import ProblemSet
from siri.runs.base_model import base_name
from tests.conftest import tiny
from tests.engines.test_pretrained import llama, write_folder


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def change_json(path: Path, **settings: object) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(known | settings))


def write_code(folder: Path, marker: Path) -> None:
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Own: pass\n")


def code_in(name: str, classes: object) -> Callable[[Path, Path], None]:
    def write(folder: Path, marker: Path) -> None:
        change_json(folder / name, auto_map=classes)
        write_code(folder, marker)

    return write


def pickled(name: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, marker: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))

    return write


def torch_instead(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(marker), folder / "pytorch_model.bin")


def torch_archive(folder: Path, marker: Path) -> None:
    torch.save(Bomb(marker), folder / "weights.data")


def torch_by_index(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(marker), folder / "shard")
    change_json(folder / "model.safetensors.index.json", metadata={}, weight_map={"lm_head.weight": "shard"})


def bin_by_index(folder: Path, marker: Path) -> None:
    change_json(folder / "pytorch_model.bin.index.json", metadata={}, weight_map={"lm_head.weight": "one.bin"})


def weights_elsewhere(folder: Path, marker: Path) -> None:
    os.rename(folder / "model.safetensors", folder.parent / "outside.safetensors")
    shards = {"lm_head.weight": "../outside.safetensors"}
    change_json(folder / "model.safetensors.index.json", metadata={}, weight_map=shards)


def both_forms(folder: Path, marker: Path) -> None:
    change_json(folder / "model.safetensors.index.json", weight_map={"lm_head.weight": "model.safetensors"})


def no_weight_map(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[1]")


def link_out(name: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, marker: Path) -> None:
        secret = folder.parent / "secret"
        secret.write_text("PRIVATE KEY")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret)

    return write


def linked_folder(folder: Path, marker: Path) -> None:
    (folder.parent / "private").mkdir()
    (folder.parent / "private" / "id").write_text("PRIVATE KEY")
    (folder / "extra").symlink_to(folder.parent / "private")


def false_cache(folder: Path, marker: Path) -> None:
    """The hub's cache has files in `blobs`; here `blobs` is a link itself."""
    (folder / "README.md").unlink(missing_ok=True)
    (folder.parent.parent / "blobs").symlink_to("/etc")
    (folder / "README.md").symlink_to(folder.parent.parent / "blobs" / "hostname")


def queue(folder: Path, marker: Path) -> None:
    os.mkfifo(folder / "notes.txt")


def generating_code(folder: Path, marker: Path) -> None:
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"open({str(marker)!r}, 'w').close()\n")


OWN = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None]}
HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "code in config.json": (code_in("config.json", OWN), "config.json asks for code .auto_map"),
    "code in tokenizer_config.json": (code_in("tokenizer_config.json", OWN), "tokenizer_config.json asks for code"),
    "code in a list": (code_in("tokenizer_config.json", ["own.Own", None]), "tokenizer_config.json asks for code"),
    "code in generation_config.json": (code_in("generation_config.json", OWN), "generation_config.json asks for code"),
    "code in processor_config.json": (code_in("processor_config.json", OWN), "processor_config.json asks for code"),
    "code in preprocessor_config.json": (code_in("preprocessor_config.json", OWN), "preprocessor_config.json asks"),
    "code in a sub-folder": (code_in("text/config.json", OWN), "text/config.json asks for code"),
    "code of another repository": (code_in("config.json", {"AutoConfig": "a/b--own.Own"}), "config.json asks for code"),
    "code deep in config.json": (
        lambda folder, marker: change_json(folder / "config.json", text_config={"a": [{"auto_map": OWN}]}),
        "config.json asks for code .auto_map",
    ),
    "a kernel from the hub": (
        lambda folder, marker: change_json(folder / "config.json", attn_implementation="owner/kernel"),
        "config.json asks for code .attn_implementation",
    ),
    "code for generating": (generating_code, "custom_generate/generate.py is code for generating"),
    "a pickle for weights": (torch_instead, "pytorch_model.bin may hold a pickle"),
    "a pickle beside weights": (pickled("training_args.bin"), "training_args.bin may hold a pickle"),
    "a vocabulary as a pickle": (pickled("vocab.pkl"), "vocab.pkl may hold a pickle"),
    "an ending in capitals": (pickled("EXTRA.PT"), "EXTRA.PT may hold a pickle"),
    "a pickle in a sub-folder": (pickled("original/consolidated.00.pth"), "original/consolidated.00.pth may hold"),
    "a pickle called text": (pickled("merges.txt"), "merges.txt may hold a pickle"),
    "a pickle called weights": (pickled("model.safetensors"), "model.safetensors may hold a pickle"),
    "an archive of torch's": (torch_archive, "weights.data may hold a pickle"),
    "pickles by an index": (torch_by_index, "(shard may hold a pickle|model.safetensors.index.json names 'shard')"),
    "an index of .bin files": (bin_by_index, "pytorch_model.bin.index.json names 'one.bin' as weights"),
    "weights outside": (weights_elsewhere, "names '../outside.safetensors' as weights"),
    "weights in two forms": (both_forms, "has model.safetensors and model.safetensors.index.json"),
    "an index without names": (no_weight_map, "model.safetensors.index.json has no weight_map"),
    "a link to a file outside": (link_out("notes.txt"), "notes.txt is a link that leads out of the folder"),
    "weights by a link": (link_out("model.safetensors"), "model.safetensors is a link that leads out"),
    "config.json by a link": (link_out("config.json"), "config.json is a link that leads out"),
    "a link to itself": (
        lambda folder, marker: (folder / "notes.txt").symlink_to("notes.txt"),
        "notes.txt is a link that leads out",
    ),
    "a link in a sub-folder": (link_out("extra/notes.txt"), "extra/notes.txt is a link that leads out"),
    "a linked folder": (linked_folder, "extra is a link that leads out"),
    "a false cache": (false_cache, "README.md is a link that leads out"),
    "a queue": (queue, "notes.txt is no plain file"),
    "an adapter": (
        lambda folder, marker: change_json(folder / "adapter_config.json", base_model_name_or_path="/elsewhere"),
        "adapter_config.json makes the folder an adapter",
    ),
    "a vocabulary elsewhere": (
        lambda folder, marker: change_json(folder / "tokenizer_config.json", vocab_file="/etc/passwd"),
        "tokenizer_config.json says what to read its tokenizer from .vocab_file=",
    ),
    "a vocabulary where the command was typed": (
        lambda folder, marker: change_json(folder / "special_tokens_map.json", vocab_file="secrets.txt"),
        "special_tokens_map.json says what to read its tokenizer from",
    ),
    "a vocabulary elsewhere behind half a character": (
        lambda folder, marker: change_json(folder / "tokenizer_config.json", vocab_file="/etc/passwd", note="\ud800"),
        "tokenizer_config.json says what to read its tokenizer from .vocab_file=",
    ),
    "code behind half a character": (
        lambda folder, marker: change_json(folder / "config.json", attn_implementation="a/kernel", note="\ud800"),
        "config.json asks for code .attn_implementation",
    ),
    "settings that are nested deeply": (
        lambda folder, marker: (folder / "extra.json").write_text("[" * 100_000 + "]" * 100_000),
        "extra.json is nested too deeply to be checked",
    ),
    "versions of a tokenizer elsewhere": (
        lambda folder, marker: change_json(
            folder / "tokenizer_config.json", fast_tokenizer_files=["../../tokenizer.4.json"]
        ),
        "tokenizer_config.json says what to read its tokenizer from .fast_tokenizer_files=",
    ),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder with nothing wrong, where the hub's cache would have one."""
    folder = tmp_path / "models--a--b" / "snapshots" / "base"
    write_folder(folder, llama())
    return folder


def on_local(folder: Path) -> None:
    engine = LocalEngine(tiny("engine.name=local", f"model.base={folder}"), ProblemSet("none", ()))
    engine.make_base(folder.parent / "made")


def on_vllm(folder: Path) -> None:
    config = tiny("engine.name=local", "evaluation.sampler=vllm")
    list(VllmSampler(config).sample(folder, SampleRequest((), 1, 8, 1.0, 0)))


def named(folder: Path) -> None:
    base_name(tiny("engine.name=local", f"model.base={folder}"))


def named_for_verl(folder: Path) -> None:
    base_name(tiny("engine.name=verl", f"model.base={folder}"))


WAYS: dict[str, Callable[[Path], object]] = {
    "loaded": lambda folder: load_pretrained(folder, "cpu", torch.float32),
    "by the local engine": on_local,
    "by vLLM": on_vllm,
    "named": named,
    "named for verl": named_for_verl,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_line_and_nothing_of_it_runs(
    attack: str, way: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = base.parent / "marker"
    write, said = HOSTILE[attack]
    write(base, marker)
    monkeypatch.setattr("builtins.input", lambda prompt="": "y")
    with pytest.raises(InputError, match=f"model.base={base}: .*{said}") as caught:
        WAYS[way](base)
    assert "\n" not in str(caught.value)
    assert "allowed " in str(caught.value)
    assert not marker.exists()


def test_the_markers_would_be_there_without_the_check(base: Path) -> None:
    """The attacks are none if the libraries would not fall for them."""
    marker = base.parent / "marker"
    code_in("config.json", OWN)(base, marker)
    change_json(base / "config.json", model_type="own")
    with pytest.raises(AttributeError):  # the class is no config; its module has been run by then
        AutoConfig.from_pretrained(base, trust_remote_code=True)
    assert marker.exists()
    marker.unlink()
    pickled("x.bin")(base, marker)
    with pytest.raises(RuntimeError):  # no weights, which is seen when it is too late
        torch.load(base / "x.bin", weights_only=False)
    assert marker.exists()


def test_the_command_line_asks_nothing_and_runs_nothing(base: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code_in("config.json", OWN)(base, marker)
    command = [sys.executable, "-m", "siri.cli", "train", "laptop", f"model.base={base}", "--home", str(tmp_path / "h")]
    done = subprocess.run(command, input="y\ny\ny\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "config.json asks for code (auto_map), which is never run" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not marker.exists()


@pytest.mark.parametrize(
    "extra", ["actor_rollout_ref.model.trust_remote_code=True", "++data={TRUST_REMOTE_CODE: true}"]
)
def test_verl_is_not_told_to_trust_a_folder(extra: str) -> None:
    with pytest.raises(InputError, match=r"^engine\.verl\.extra=.*: code from a model folder is never run"):
        check_recipe(tiny("engine.name=verl", f"engine.verl.extra=['{extra}']"))


def test_what_a_folder_of_the_hub_has_is_taken(base: Path) -> None:
    """Licences, other languages' words for code, links inside the folder and into the cache, hidden files."""
    (base.parent.parent / "blobs").mkdir()
    os.rename(base / "model.safetensors", base.parent.parent / "blobs" / "abc")
    (base / "model.safetensors").symlink_to("../../blobs/abc")
    (base / "LICENSE").write_text("free")
    (base / "COPYING").symlink_to("LICENSE")
    (base / ".cache").mkdir()
    (base / ".cache" / "x.bin").write_bytes(b"\x80\x04")
    change_json(base / "vocab.json", auto_map=5)
    change_json(base / "tokenizer_config.json", special_tokens_map_file="/somebody/else.json", auto_map={})
    (base / "notes.json").write_text("no json")
    require_data(base)
    assert load_pretrained(base, "cpu", torch.float32).context == 64


@pytest.mark.parametrize("header", [0x280, 0x380, 0x480, 0x580])
def test_safetensors_whose_length_looks_like_a_pickle_s_mark_are_taken(header: int, base: Path) -> None:
    weights = base / "model.safetensors"
    written = weights.read_bytes()
    length = int.from_bytes(written[:8], "little")
    weights.write_bytes((header + 2**16).to_bytes(8, "little") + written[8 : 8 + length].ljust(header + 2**16))
    with weights.open("ab") as file:
        file.write(written[8 + length :])
    assert load_pretrained(base, "cpu", torch.float32).context == 64
    weights.write_bytes(weights.read_bytes()[:2] + b"." * 100)
    with pytest.raises(InputError, match="may hold a pickle"):
        require_data(base)


def test_verl_s_own_files_of_a_checkpoint_are_left_to_verl(base: Path) -> None:
    (base / "state.verl.model_world_size_1_rank_0.pt").write_bytes(b"\x80\x04")
    require_data(base)
    assert not [name for name in files_beside(base) if name.startswith("state.")]


def test_files_of_a_checkpoint_in_a_model_folder_stay_there(base: Path) -> None:
    """A base with an optimizer, or with verl's state, would be gone on from as a checkpoint is."""
    for name in ("optimizer.safetensors", "method.json", "steps.jsonl", "manifest.json", "state.verl.json"):
        (base / name).write_text("{}")
    short = ("schedule.max_budget=40", "schedule.min_budget=20")
    config = tiny("engine.name=local", f"model.base={base}", *short)
    LocalEngine(config, ProblemSet("none", ())).make_base(base.parent / "made")
    made = {path.name for path in (base.parent / "made").iterdir()}
    assert made == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
