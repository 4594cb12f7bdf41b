"""Every place that reads something from outside, what an undamaged one looks like there, and what else may lie there.

`READERS` are tried by `test_readers` with all damages. `OTHERS` are calls that read, and why nothing from outside comes
by that way alone. Together they are all calls that read: a new one has to be listed here.
"""

import ast
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import torch
from pyarrow import parquet

from flows import deploy
from siri import shipped
from siri.config import load, validate
from siri.engines.local.pretrained import load_pretrained, read_tokenizer
from siri.engines.model_folder import count_parameters, require_data, weight_files
from siri.engines.server.answers import read_answer
from siri.evaluation.benchmark_table import published_rows
from siri.evaluation.partial import SAMPLED_BY, Partial, join, sampled_by
from siri.evaluation.published import load_published
from siri.evaluation.report import write_samples
from siri.home import Home, find_home
from siri.platform import private, running
from siri.problems import load_benchmark, load_problems
from siri.problems.grading import THINKING
from siri.runs import catalog, retention, step_log
from siri.store.entry import Entry
from siri.store.files import file_sha256, seal
from siri.store.manifest import (
    CorruptEntryError,
    Manifest,
    NewerFormatError,
    check_format,
    format_text,
    parse_manifest,
)
from siri.store.replicated import STORE_URL, open_store
from siri.store.tombstones import lines_of as lines_of_manifest
from siri.store.tombstones import recall
from sweeps.spec import load_sweep
from sweeps.storage import STUDY_URL, open_journal, open_storage

ROOT = Path(__file__).parent.parent
KEY = "a" * 64


@dataclass(frozen=True)
class Reader:
    """One kind of file, text or variable."""

    sample: bytes
    read: Callable[[Path], Any]
    """Reads it at a path; where it is no file, the path's content."""
    file: str = ""
    """What it is called in its folder; empty for what is no file."""
    errors: tuple[type[Exception], ...] = ()
    """What it may raise beside InputError, by its docstring: read by a caller who moves the entry aside."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """What else lies there."""
    examples: int = 30


def text_of(path: Path) -> str:
    """As the system hands arguments and variables over: bytes that are no UTF-8 become halves of surrogate pairs."""
    return os.fsdecode(path.read_bytes().replace(b"\0", b""))


def variable(name: str, read: Callable[[], Any]) -> Callable[[Path], Any]:
    def with_variable(path: Path) -> Any:
        before = os.environ.get(name)
        os.environ[name] = text_of(path)
        try:
            return read()
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before

    return with_variable


def table() -> bytes:
    sink = pyarrow.BufferOutputStream()
    rows = [{"question": f"What is {n}?", "answer": str(n), "id": n} for n in range(9)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def part() -> bytes:
    sink = io.BytesIO()
    rows = pandas.DataFrame({"problem": ["a", "a"], "tokens": [None, None]})
    write_samples(rows, sink, {SAMPLED_BY: b'{"engine": "scripted"}'})
    return sink.getvalue()


def parts_of(path: Path) -> Any:
    found = Partial(path.parent, ["a"], 2, {}).read()
    return (join(found), [*map(sampled_by, found)]) if found else found


PART = part()
MANIFEST = Manifest(KEY, 1, None, "snapshot", KEY, {"model.safetensors": KEY}, {"budget": 3})
LINES = b"".join(json.dumps({"step": step, "key": KEY, "time": 1.5, "loss": 0.5}).encode() + b"\n" for step in (1, 2))
RUNNING = asdict(running.Running(1, "http://127.0.0.1:1", "http://127.0.0.1:2", True, (), ("prefect",)))
ROWS = [{"question": "1 + 1?", "answer": 2, "id": 7}, {"problem": "2 + 2?", "reward_model": {"ground_truth": "4"}}]
RECIPE = b'method: {name: siri}\nschedule: {cycle_steps: 8, cycles: 2}\nproblems:\n  suffix: "a\\tb"\nseed: 3\n'
SWEEP = b"kind: grid\nsizes: {laptop: {recipe: laptop}}\nseeds: [0, 1]\nbaseline: a\narms: {a: {overrides: [seed=1]}}\n"
DESCRIPTION = {
    "id": "a" * 12, "name": "laptop-s0", "labels": ["laptop"], "created": 1,
    "config": {"recipe": "laptop", "engine": {"name": "local"}},
    "keys": [KEY], "snapshots": {"base": KEY}, "base": KEY, "numerics": {}, "grader": ["exact", "1"], "prompt": {},
    "problems": {"train": {"digest": KEY, "name": "train", "rows": 1}},
}  # fmt: skip
BENCHMARK = b"description: sums\nfile: rows.json\nfields: {question: problem}\nsamples: 4\ntop_p: 0.95\n"
JOURNAL = b'{"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [1]}\n'


def sealed(values: Mapping[str, Any]) -> bytes:
    return seal(values).encode()


def read_running(path: Path) -> Any:
    home = Home(path.parent.parent)
    with running.claimed(home):
        return running.find(home)


def lines_of(path: Path) -> Any:
    files = {path.name: file_sha256(path)}
    return step_log.lines_of(Entry(path.parent, Manifest(KEY, 1, None, "snapshot", KEY, files, {})))


def read_password(path: Path) -> Any:
    path.parent.chmod(0o700)
    if path.is_file() and not path.is_symlink():
        path.chmod(0o600)
    return private.read(Home(path.parent.parent.parent))


def model_folder(path: Path) -> Any:
    require_data(path.parent)
    weight_files(path.parent)
    read_tokenizer(path.parent)
    return load_pretrained(path.parent, "cpu", torch.float32)


def parameters_of(path: Path) -> int:
    require_data(path.parent)
    return count_parameters(path.parent)


def readers_of_a_model(folder: Path) -> dict[str, Reader]:
    """One reader for each file of a model folder."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    names = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    found = {name: Reader(files[name], model_folder, name, beside=files, examples=8) for name in names if name in files}
    index = json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
    shards = {"model-00001-of-00001.safetensors": files["model.safetensors"]}
    return found | {
        "an index of weights": Reader(index, lambda path: weight_files(path.parent), "model.safetensors.index.json"),
        "a shard": Reader(
            files["model.safetensors"],
            parameters_of,
            "model-00001-of-00001.safetensors",
            beside=shards | {"model.safetensors.index.json": index},
        ),
    }


READERS: dict[str, Reader] = {
    "response of a model server": Reader(
        b'{"choices": [{"message": {"content": "7", "reasoning": "so"}, "finish_reason": "stop", "token_ids": [1, 2]}],'
        b' "usage": {"completion_tokens": 2}}',
        lambda path: read_answer(path.read_bytes(), "server=x", 8, THINKING),
    ),
    "recipe": Reader(RECIPE, lambda path: load(str(path)), "mine.yaml"),
    "sweep file": Reader(SWEEP, lambda path: load_sweep(str(path)), "mine.yaml", examples=20),
    "published table": Reader(
        (shipped.PUBLISHED / "siri-1.5b.yaml").read_bytes(),
        lambda path: published_rows(load_published(str(path))),
        "mine.yaml",
        examples=20,
    ),
    "policy": Reader(
        b"unneeded: thin\nfree_below: 20\n", lambda path: retention.read_policy(Home(path.parent)), "retention.yaml"
    ),
    "override": Reader(b"schedule={cycles: 2, min_budget: 24}", lambda path: load("laptop", [text_of(path)])),
    "override of text": Reader(b"problems.suffix='it''s'", lambda path: load("laptop", [text_of(path)])),
    "name of a recipe": Reader(b"laptop", lambda path: load(text_of(path))),
    "form": Reader(
        b'{"seed": 3, "schedule": {"cycles": 2}, "evaluation": {"final": ["dev"], "temperature": 0.5}}',
        lambda path: validate(json.loads(path.read_bytes())),
        errors=(ValueError, RecursionError),  # of json.loads, as a stand-in for the server's own reading
    ),
    "problems, JSON": Reader(json.dumps(ROWS).encode(), lambda path: load_problems(str(path)), "mine.json"),
    "problems, JSON lines": Reader(
        "\n".join(map(json.dumps, ROWS)).encode(), lambda path: load_problems(str(path)), "mine.jsonl"
    ),
    "benchmark": Reader(
        BENCHMARK,
        lambda path: load_benchmark(str(path), "--benchmark"),
        "mine.yaml",
        beside={"rows.json": b'[{"problem": "1 + 1?", "answer": 2}]'},
    ),
    "problems, Parquet": Reader(table(), lambda path: load_problems(str(path)), "mine.parquet"),
    "a part of an evaluation": Reader(PART, parts_of, f"{0:09d}-{hashlib.sha256(PART).hexdigest()}.parquet"),
    "run.json": Reader(sealed(DESCRIPTION), catalog.read_description, "run.json"),
    "kept.json": Reader(sealed({"x": 3}), lambda path: catalog.kept_names(path.parent), catalog.KEPT),
    "held.json": Reader(sealed({"x": [3]}), lambda path: catalog.held_steps(path.parent), catalog.HELD),
    "benchmarks.json": Reader(
        sealed({"/a.jsonl": {"name": "a", "rows": 1, "digest": KEY}}),
        lambda path: catalog.measured_files(path.parent),
        catalog.BENCHMARKS,
    ),
    "manifest": Reader(
        MANIFEST.text().encode(),
        lambda path: parse_manifest(path.read_bytes(), KEY),
        errors=(CorruptEntryError, NewerFormatError),
    ),
    "what a removed snapshot has left": Reader(
        lines_of_manifest(MANIFEST).text().encode(),
        lambda path: recall(path.parent, KEY) or "aside",
        "left/manifest.json",
    ),
    "format.json": Reader(format_text().encode(), lambda path: check_format(path.read_bytes(), "store=x")),
    "metrics.jsonl": Reader(LINES, step_log.read_lines, "metrics.jsonl", errors=(OSError,)),
    "steps.jsonl": Reader(LINES, lines_of, "steps.jsonl", errors=(CorruptEntryError, OSError)),
    "running.json": Reader(sealed(RUNNING), read_running, "platform/running.json"),
    "password": Reader(b"siri:" + b"a" * 43 + b"\n", read_password, "platform/private/password"),
    "journal of a study": Reader(JOURNAL, lambda path: open_journal(path.parent, "mine"), "mine.journal"),
    "SIRI_HOME": Reader(b"/tmp/~/\xc3\xa4", variable("SIRI_HOME", find_home)),
    "SIRI_STORE": Reader(b"memory://a", variable(STORE_URL, lambda: open_store(Home(Path("/nowhere"))))),
    "SIRI_STUDY_URL": Reader(
        b"mysql://u:p@127.0.0.1:1/x", variable(STUDY_URL, lambda: open_storage(Home(Path("/nowhere")), "mine"))
    ),
    "heartbeats": Reader(b"30", variable(deploy.FREQUENCY, deploy.silent_seconds)),
}

OWN_CHILD = "what a process says that this one has started"
VERIFIED = "a file of an entry whose checksums have just been verified"
SHIPPED = "a file that ships with SIRI, or a page of a library's"
OWN_VALUE = "JSON that this process has just made"
OWN_LOG = "a log for people, read whatever bytes it holds"
PROBE = "bytes that are compared or copied and not understood"
HEADLINE = "a number for a list of runs; one that cannot be read is none"
OWN_CACHE = "code that this package has compiled for itself; whoever might have exchanged it is looked at there"
WRITTEN_HERE = "what the line before has written"
HANDED_ON = "an address that a browser is handed; this process reads nothing"
NAMED_FILE = "one published file, whose sha256 is in the code; tests/engines/test_smollm2.py has what else may come"

CALLS: dict[str, str] = {
    "siri/cli/results.py:open_compared": HANDED_ON,
    "siri/config/loading.py:load": "recipe",
    "siri/config/loading.py:_value_of": "override",
    "siri/engines/local/compiled/cache.py:key": SHIPPED,
    "siri/engines/local/compiled/cache.py:read": OWN_CACHE,
    "siri/engines/local/policy.py:Policy.load": VERIFIED,
    "siri/engines/local/pretrained.py:_fetch": "config.json",
    "siri/engines/local/network.py:load_network": "model.safetensors",
    "siri/engines/local/pretrained.py:read_config": "config.json",
    "siri/engines/local/pretrained.py:load_config": "config.json",
    "siri/engines/local/pretrained.py:load_tokenizer": "tokenizer.json",
    "siri/engines/local/pretrained.py:load_generation_config": "generation_config.json",
    "siri/engines/local/pretrained.py:load_decoder": "model.safetensors",
    "siri/engines/local/pretrained.py:weights_dtype": "model.safetensors",
    "siri/engines/local/exporting.py:_name_dtype": WRITTEN_HERE,
    "siri/engines/smollm2.py:_unpack": NAMED_FILE,
    "siri/engines/smollm2.py:convert": NAMED_FILE,
    "siri/engines/model_folder.py:weight_files": "an index of weights",
    "siri/engines/model_folder.py:_count_numbers": "a shard",
    "siri/engines/model_folder.py:copy_beside": PROBE,
    "siri/engines/model_folder.py:_begins_as_pickle": PROBE,
    "siri/engines/model_folder.py:_read_json": "tokenizer_config.json",
    "siri/engines/scripted/child.py:main": OWN_CHILD,
    "siri/engines/server/answers.py:_read": "response of a model server",
    "siri/engines/scripted/policy.py:ScriptedStepper.load": VERIFIED,
    "siri/engines/scripted/process.py:_report_from_json": OWN_CHILD,
    "siri/engines/verl/checkpoints.py:obstacle": VERIFIED,
    "siri/engines/verl/engine.py:VerlEngine._take": OWN_CHILD,
    "siri/engines/verl/order.py:read_order": OWN_CHILD,
    "siri/engines/verl/order.py:read_problems": OWN_CHILD,
    "siri/engines/verl/process.py:VerlProcess._written_since": OWN_CHILD,
    "siri/engines/verl/process.py:VerlProcess.last_words": OWN_LOG,
    "siri/engines/vllm/child.py:main": OWN_CHILD,
    "siri/engines/vllm/sampler.py:VllmSampler._answers": OWN_CHILD,
    "siri/cli/evaluations.py:_problem_of": VERIFIED,
    "siri/evaluation/evaluation.py:Evaluation.samples": VERIFIED,
    "siri/evaluation/published.py:load_published": "published table",
    "siri/evaluation/samples.py:Chosen.to_json": VERIFIED,
    "siri/evaluation/measuring.py:_asked": OWN_VALUE,
    "siri/evaluation/evaluation.py:read_report": VERIFIED,
    "siri/evaluation/evaluation.py:read_problems": VERIFIED,
    "siri/evaluation/regrading.py:Regraded.to_json": OWN_VALUE,
    "siri/evaluation/regrading.py:_regrade_evaluation": VERIFIED,
    "siri/evaluation/partial.py:Partial._count": "a part of an evaluation",
    "siri/evaluation/partial.py:sampled_by": "a part of an evaluation",
    "siri/evaluation/partial.py:unfinished": "a part of an evaluation",
    "siri/evaluation/partial.py:join": "a part of an evaluation",
    "siri/evaluation/headlines.py:_read": HEADLINE,
    "siri/evaluation/headlines.py:_last_step": HEADLINE,
    "siri/migrations.py:_texts": SHIPPED,
    "siri/tracking/app.py:_remove_assistant": SHIPPED,
    "siri/platform/pages.py:check": SHIPPED,
    "siri/platform/pages.py:_copy": SHIPPED,
    "siri/platform/pages.py:_silence": SHIPPED,
    "siri/platform/private.py:_read": "password",
    "siri/platform/running.py:_post": "answer of a server",
    "siri/platform/supervisor.py:Supervisor._deploy": OWN_LOG,
    "siri/platform/supervisor.py:Child.last_words": OWN_LOG,
    "siri/problems/files.py:read_rows": "problems, JSON",
    "siri/problems/sources.py:fetch": "problems, Parquet",
    "siri/problems/benchmarks.py:find_benchmark": "benchmark",
    "siri/problems/named.py:_cached": PROBE,
    "siri/problems/grading/pool.py:serve": PROBE,
    "siri/problems/grading/pool.py:_work": OWN_CHILD,
    "siri/problems/template_child.py:main": OWN_CHILD,
    "siri/terminal.py:Lasting._kept": PROBE,
    "siri/terminal.py:say_json": OWN_VALUE,
    "siri/terminal.py:_open_missing": PROBE,
    "siri/tracking/views.py:_call": "answer of a server",
    "siri/problems/templates.py:_try_out": OWN_CHILD,
    "siri/processes/file_lock.py:is_held": PROBE,
    "siri/processes/host.py:_read": SHIPPED,
    "siri/runs/base_model.py:_beside_weights": "config.json",
    "siri/runs/retention.py:read_policy": "policy",
    "siri/runs/step_log.py:read_lines": "metrics.jsonl",
    "siri/runs/step_log.py:_parse": "metrics.jsonl",
    "siri/runs/step_log.py:lines_of": "steps.jsonl",
    "siri/store/files.py:file_sha256": PROBE,
    "siri/store/files.py:parse_json": "manifest",
    "siri/store/files.py:unseal": "run.json",
    "siri/store/files.py:read_small": "kept.json",
    "siri/store/files.py:flush": PROBE,
    "siri/store/manifest.py:parse_manifest": "manifest",
    "siri/store/manifest.py:check_format": "format.json",
    "siri/store/scratch.py:_lock": PROBE,
    "siri/train.py:load_state": VERIFIED,
    "sweeps/dashboard.py:LoggedIn._log_in": SHIPPED,
    "sweeps/export.py:plain_rows": OWN_VALUE,
    "sweeps/spec.py:load_sweep": "sweep file",
    "sweeps/storage.py:_drop_torn_line": "journal of a study",
    "sweeps/worker.py:read_job": OWN_CHILD,
    "flows/ablation.py:Crew._last_words": OWN_LOG,
    "flows/naming.py:_words": SHIPPED,
    "dashboards/report.py:assets": SHIPPED,
}
"""Module and function of every call that reads -> the reader above that stands for it, or why there is none."""

READING = frozenset(
    {"open", "read_text", "read_bytes", "loads", "read_parquet", "read_table", "read_csv", "from_pretrained"}
    | {"safe_open", "load_file", "cat_file", "snapshot_download", "safe_load", "parse_json", "read_json", "read_object"}
    | {"read_regular", "parse_rows", "parse_parquet", "parse_yaml", "read_settings", "json"}
)
"""Names of functions and methods that read what is not in memory yet, or make values of text."""
WRITING = ("w", "wb", "a", "ab", "x", "xb")


def calls_that_read() -> Iterator[str]:
    """Module and function of every call of one of these in the code, but for the readers' own."""
    for part in ("siri", "sweeps", "flows", "dashboards"):
        for path in sorted((ROOT / part).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name not in ("siri/reading.py", "siri/yaml12.py"):
                yield from (f"{name}:{place}" for place in _calls(ast.parse(path.read_text()), ()))


def _calls(node: ast.AST, inside: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        inside = (*inside, node.name)
    if isinstance(node, ast.Call) and _reads(node):
        yield ".".join(inside)
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, inside)


def _reads(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "load":
        return isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in (
            "json",
            "yaml",
            "pickle",
            "torch",
        )
    if name not in READING:
        return False
    told = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    return not (name == "open" and (set(told) & set(WRITING) or "O_CREAT" in ast.unparse(call)))
