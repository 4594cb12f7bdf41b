"""A model's files on their way through a run: shards are one set of weights, and what stands beside them stays."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from siri.config import RunConfig, load
from siri.engines.local import pretrained
from siri.engines.local.pretrained import load_pretrained, state_tensors
from siri.engines.verl import checkpoints
from siri.errors import InputError
from siri.home import Home
from siri.methods import METHODS
from siri.runs.advancing import advance
from siri.runs.base_model import make_base
from siri.runs.exporting import export
from siri.runs.forecast import forecast_room
from siri.runs.retention import promote
from siri.runs.run import Run, create_run
from siri.store.entries import INDEX, WEIGHTS, Entry, Manifest, describe_files, verify, weights_sha256
from siri.store.replicated import STORE_URL
from tests.engines.test_pretrained import gpt2, llama, write_folder
from tests.odd import ODD

TINY = (
    "engine.kernels=torch",  # which every model is computed by
    "engine.name=local",
    "problems.source=FILE",
    "problems.template=plain",
    "schedule.max_budget=8",
    "schedule.min_budget=4",
    "schedule.cycle_steps=4",
    "schedule.cycles=1",
    "rollout.batch_size=2",
    "rollout.group_size=4",
    "checkpoint_every=1",
)
SHARD = 8_000
"""Bytes, of a model of some 60,000."""
KINDS = {"a decoder": llama, "a model of transformers": gpt2}


@pytest.fixture(autouse=True)
def _small_shards_and_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "MAX_SHARD", SHARD)
    monkeypatch.setitem(METHODS, "siri", ODD)


def shard(folder: Path) -> None:
    """Write a folder's weights again as shards."""
    network = AutoModelForCausalLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    network.save_pretrained(folder, max_shard_size=SHARD)
    assert (folder / INDEX).exists()
    assert len(list(folder.glob("model-*.safetensors"))) > 3


def recipe(tmp_path: Path, base: Path, *overrides: str) -> RunConfig:
    problems = [{"question": f"w{number % 58} w{number // 58}", "answer": "w1"} for number in range(120)]
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    settings = [setting.replace("FILE", str(tmp_path / "problems.json")) for setting in TINY]
    return load("laptop", [*settings, f"model.base={base}", *overrides])


def train(config: RunConfig, home: Home, last: int = 4) -> Run:
    list(make_base(config, home))
    run = create_run(config, home)
    list(advance(run, last))
    return run


def found(run: Run, name: str) -> Entry:
    entry = run.snapshot(name)
    assert entry is not None
    return entry


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in folder.glob("model*.safetensors") for name, value in load_file(path).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_base_computes_what_it_does_in_one_file(kind: str, tmp_path: Path) -> None:
    write_folder(tmp_path, KINDS[kind]())
    whole = state_tensors(load_pretrained(tmp_path, "cpu", torch.float32).model)
    shard(tmp_path)
    parts = state_tensors(load_pretrained(tmp_path, "cpu", torch.float32).model)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_sharded_weights_ends_as_one_without(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "whole", KINDS[kind]())
    write_folder(tmp_path / "parts", KINDS[kind]())
    shard(tmp_path / "parts")
    parts = train(recipe(tmp_path, tmp_path / "parts"), Home(tmp_path / "h1"))
    monkeypatch.setattr(pretrained, "MAX_SHARD", 10**9)
    whole = train(recipe(tmp_path, tmp_path / "whole"), Home(tmp_path / "h2"))
    for name in ("base", "c1-low", "c1-high"):
        ours, theirs = found(parts, name), found(whole, name)
        assert WEIGHTS in theirs.manifest.files
        assert WEIGHTS not in ours.manifest.files
        assert INDEX in ours.manifest.files
        assert ours.manifest.weights_sha256 == weights_sha256(ours.manifest.files)
        one, other = tensors(ours.folder), tensors(theirs.folder)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[weight], other[weight]) for weight in one)
    assert not torch.equal(*(next(iter(tensors(found(parts, name).folder).values())) for name in ("base", "c1-high")))


def test_sharded_snapshots_go_everywhere_that_others_go(tmp_path: Path) -> None:
    """A crash, a promotion, thinning, a fork and an export."""
    write_folder(tmp_path / "base", llama())
    config = recipe(tmp_path, tmp_path / "base")
    list(make_base(config, Home(tmp_path / "home")))
    run = create_run(config, Home(tmp_path / "home"))
    way = advance(run, 4)
    assert next(way).step == 1
    way.close()
    promote(run, "step-1")
    list(advance(run, 4))
    low = run.store.thin(found(run, "c1-low").manifest.key)
    assert low is not None
    verify(low)
    fork = recipe(tmp_path, tmp_path / "base", f"fork.key={run.keys[2]}", "fork.step=2")
    forked = train(fork, Home(tmp_path / "home"))
    assert found(forked, "c1-high").manifest.weights_sha256 != found(run, "c1-high").manifest.weights_sha256
    export(run, "c1-high", tmp_path / "out")
    assert (tmp_path / "out" / INDEX).exists()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    assert torch.equal(again.model.norm.weight, tensors(tmp_path / "out")["model.norm.weight"])


def test_a_shared_store_brings_shards_and_sub_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_URL, f"file://{tmp_path / 'shared'}")
    base = tmp_path / "base"
    write_folder(base, llama())
    (base / "extra" / "deep").mkdir(parents=True)
    (base / "extra" / "deep" / "notes.txt").write_text("as it came")
    config = recipe(tmp_path, base)
    first = train(config, Home(tmp_path / "one"))
    list(make_base(config, Home(tmp_path / "two")))
    second = create_run(config, Home(tmp_path / "two"))
    assert list(advance(second, 4)) == []
    ours, theirs = found(first, "c1-high"), found(second, "c1-high")
    assert ours.manifest == theirs.manifest
    assert describe_files(theirs.folder).items() >= theirs.manifest.files.items()
    assert (theirs.folder / "extra" / "deep" / "notes.txt").read_text() == "as it came"


@pytest.mark.parametrize("lost", ["shard", "index"])
def test_weights_that_are_not_all_there_are_one_line(lost: str, tmp_path: Path) -> None:
    write_folder(tmp_path, llama())
    shard(tmp_path)
    next(tmp_path.glob("model-*.safetensors") if lost == "shard" else iter([tmp_path / INDEX])).unlink()
    with pytest.raises(InputError, match=r"^model\.base=") as caught:
        load_pretrained(tmp_path, "cpu", torch.float32)
    assert "\n" not in str(caught.value)


def test_a_changed_shard_is_another_base(tmp_path: Path) -> None:
    files = {"model-00001-of-00002.safetensors": "a", "model-00002-of-00002.safetensors": "b", INDEX: "c", "x": "d"}
    plain = weights_sha256(files)
    assert plain == weights_sha256(dict(reversed(files.items()))) == weights_sha256(files | {"x": "e"})
    for name in list(files)[:3]:
        assert weights_sha256(files | {name: "other"}) != plain
    assert weights_sha256({WEIGHTS: "sha", "config.json": "c"}) == "sha"
    with pytest.raises(ValueError, match=r"^no weights among config\.json$"):
        weights_sha256({"config.json": "c"})


# Beside the weights


@pytest.fixture
def furnished(tmp_path: Path) -> Path:
    """A base with all that may stand beside the weights."""
    folder = tmp_path / "furnished"
    write_folder(folder, llama())
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }} w1")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ bos_token }} w2")
    (folder / "LICENSE").write_text("free")
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5], "temperature": 0.6, "do_sample": true}')
    (folder / "tokenizer_config.json").write_text(
        (folder / "tokenizer_config.json").read_text().replace("{", '{"of_its_own": [1, 2],', 1)
    )
    (folder / "assets" / "deep").mkdir(parents=True)
    (folder / "assets" / "deep" / "words.txt").write_text("words")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download").write_text("hidden")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_beside_the_weights_comes_out_as_it_went_in(kind: str, furnished: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "model", KINDS[kind]())
    for name in ("config.json", WEIGHTS):
        os.replace(tmp_path / "model" / name, furnished / name)
    run = train(recipe(tmp_path, furnished), Home(tmp_path / "home"))
    export(run, "c1-high", tmp_path / "out")
    came = {name: sha for name, sha in describe_files(furnished).items() if name not in ("config.json", WEIGHTS)}
    assert "additional_chat_templates/tool_use.jinja" in came
    assert "assets/deep/words.txt" in came
    for folder in (found(run, "base").folder, found(run, "c1-low").folder, tmp_path / "out"):
        there = describe_files(folder)
        assert came.items() <= there.items()
        assert "tokenizer.json" in there
        assert not [name for name in there if "download" in name]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == {
        "default": "{{ messages[0].content }} w1",
        "tool_use": "{{ bos_token }} w2",
    }
    assert load_pretrained(tmp_path / "out", "cpu", torch.float32).eos_ids == (2, 5)


def test_another_template_beside_the_weights_is_another_base(furnished: Path, tmp_path: Path) -> None:
    config, home = recipe(tmp_path, furnished), Home(tmp_path / "home")
    list(make_base(config, home))
    before = create_run(config, home).base
    (furnished / "additional_chat_templates" / "tool_use.jinja").write_text("another")
    list(make_base(config, home))
    assert create_run(config, home).base != before


def test_all_end_tokens_survive_where_only_config_json_names_them(tmp_path: Path) -> None:
    write_folder(tmp_path / "base", llama())
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"eos_token_id": [2, 7]}))
    (tmp_path / "base" / "generation_config.json").write_text('{"temperature": 0.5}')
    run = train(recipe(tmp_path, tmp_path / "base"), Home(tmp_path / "home"))
    assert load_pretrained(found(run, "c1-high").folder, "cpu", torch.float32).eos_ids == (2, 7)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "a//b", "", ".", "./a"])
def test_a_manifest_names_no_file_outside_its_entry(name: str) -> None:
    with pytest.raises(ValueError, match="is no file name"):
        Manifest("k", 0, None, "base", "", {name: "sha"}, {})


def test_verl_s_shards_are_weights_and_its_own_files_are_not(tmp_path: Path) -> None:
    state, folder = tmp_path / "global_step_3", tmp_path / "packed"
    (state / "actor" / "huggingface").mkdir(parents=True)
    (state / "method.json").write_text("{}")
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX]
    for name in [*shards, "config.json", "tokenizer.json"]:
        (state / "actor" / "huggingface" / name).write_text(name)
    (state / "actor" / "optim_world_size_1_rank_0.pt").write_text("pickle")
    checkpoints.pack(state, folder, 1)
    names = {path.name for path in folder.iterdir()}
    own = {"method.json", "state.verl.json", "state.verl.optim_world_size_1_rank_0.pt"}
    assert names == {*shards, "config.json", *own}, "the tokenizer is the one that the stage started from"
    assert not state.exists()


# Forecast


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained_in", ["float32", "bfloat16"])
@pytest.mark.parametrize("sharded", [shard, lambda folder: None])
def test_the_forecast_of_a_snapshot_is_its_size_whatever_format_the_base_has(
    dtype: torch.dtype, trained_in: str, sharded: Callable[[Path], None], tmp_path: Path
) -> None:
    config: PreTrainedConfig = llama(hidden_size=128, intermediate_size=256)
    network = write_folder(tmp_path / "base", config)
    network.to(dtype).save_pretrained(tmp_path / "base")
    sharded(tmp_path / "base")
    settings = recipe(tmp_path, tmp_path / "base", f"engine.dtype={trained_in}")
    room = forecast_room(settings, Home(tmp_path / "none"))
    assert room is not None
    measured = found(train(settings, Home(tmp_path / "home")), "c1-high").size
    assert room.each == pytest.approx(measured, rel=0.03)
    assert room.bytes == (room.snapshots + 2) * room.each
    newest = settings.snapshots.model_copy(update={"state": "newest"})
    thin = forecast_room(settings.model_copy(update={"snapshots": newest}), Home(tmp_path / "none"))
    assert thin is not None
    thinned = found(train(settings.model_copy(update={"snapshots": newest}), Home(tmp_path / "thin")), "c1-low").size
    assert thin.older == pytest.approx(thinned, rel=0.05)
    assert thin.bytes == (thin.snapshots - 1) * thin.older + 3 * thin.each
    engine = settings.engine.model_copy(update={"name": "verl"})
    cluster = forecast_room(settings.model_copy(update={"engine": engine}), Home(tmp_path / "none"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert cluster is not None
    assert cluster.each - room.each == (4 if trained_in == "float32" else 2) * parameters
