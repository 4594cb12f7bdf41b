"""Keys: what names a snapshot and what does not, setting by setting; trunks that runs share."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.config import RunConfig, field_paths
from siri.engines.local.engine import numerics_of as local_numerics
from siri.engines.verl.engine import numerics_of as verl_numerics
from siri.methods import METHODS
from siri.problems import laptop, load_splits
from siri.problems.grading import rules
from siri.runs import keys
from siri.runs.base_model import base_name
from siri.seeding import seed_for
from tests.conftest import tiny

BASIS = ("engine.name=local", "engine.kernels=torch", "model.warmup.steps=3")

IN_KEY = {
    "seed": ["seed=7"],
    "schedule.shape": ["schedule.shape=stair"],
    "schedule.max_budget": ["schedule.max_budget=71"],
    "schedule.min_budget": ["schedule.min_budget=35"],
    "schedule.cycle_steps": ["schedule.cycle_steps=10"],
    "schedule.first_phase": ["schedule.first_phase=expansion"],
    "schedule.cycle_shapes": ["schedule.cycle_shapes=[cosine, stair]"],
    "schedule.segments": ["schedule.shape=segments", "schedule.segments=[{budget: 36, steps: 16}]"],
    "method.clip_low": ["method.clip_low=0.1"],
    "method.clip_high": ["method.clip_high=0.3"],
    "method.advantage_scale": ["method.advantage_scale=none"],
    "method.loss_aggregation": ["method.loss_aggregation=seq-mean-token-sum"],
    "method.minibatches": ["method.minibatches=4"],
    "method.settings": ["method.name=kimi", "method.settings.weight=0.5"],
    "method.kl_weight": ["method.kl_weight=0.001"],
    "method.entropy_weight": ["method.entropy_weight=0.001"],
    "method.draws": ["method.draws=3"],
    "rollout.batch_size": ["rollout.batch_size=8"],
    "rollout.group_size": ["rollout.group_size=8"],
    "rollout.temperature": ["rollout.temperature=0.9"],
    "optimizer.learning_rate": ["optimizer.learning_rate=1e-4"],
    "optimizer.warmup_steps": ["optimizer.warmup_steps=6"],
    "optimizer.beta1": ["optimizer.beta1=0.8"],
    "optimizer.beta2": ["optimizer.beta2=0.9"],
    "optimizer.epsilon": ["optimizer.epsilon=1e-7"],
    "optimizer.weight_decay": ["optimizer.weight_decay=0.1"],
    "optimizer.max_grad_norm": ["optimizer.max_grad_norm=2"],
    "problems.source": ["problems.source=FILE"],
    "problems.train_size": ["problems.train_size=65"],
    "problems.seed": ["problems.seed=1"],
    "problems.easy": ["problems.easy=0.25"],
    "problems.terms": ["problems.source=sums", "problems.terms=3"],
    "problems.digits": ["problems.source=sums", "problems.digits=1"],
    "problems.template": ["problems.template=plain"],
    "problems.date": ["problems.date=2025-01-31"],
    "problems.suffix": ["problems.suffix=think"],
    "problems.grader": ["problems.grader=boxed"],
    "problems.thinking": ["problems.thinking=[<thought>, </thought>]"],
    "problems.system": ["problems.system=Think."],
    "problems.template_arguments": ["problems.template_arguments={enable_thinking: false}"],
    "problems.stop": ["problems.stop=[END]"],
    "model.base": ["model.base=FOLDER"],
    "model.base_seed": ["model.base_seed=1"],
    "model.shape.width": ["model.shape.width=32"],
    "model.shape.layers": ["model.shape.layers=2"],
    "model.shape.heads": ["model.shape.heads=2"],
    "model.shape.feed_forward": ["model.shape.feed_forward=64"],
    "model.shape.context": ["model.shape.context=300"],
    "model.warmup.traces": ["model.base=FOLDER", "model.warmup.traces=sums"],
    "model.warmup.steps": ["model.warmup.steps=4"],
    "model.warmup.batch_size": ["model.warmup.batch_size=8"],
    "model.warmup.learning_rate": ["model.warmup.learning_rate=1e-3"],
    "model.warmup.weight_decay": ["model.warmup.weight_decay=0.1"],
    "rollout.old_logprobs": ["rollout.old_logprobs=trainer"],
    "engine.name": ["engine.name=scripted"],
    "engine.device": ["engine.device=cuda"],
    "engine.dtype": ["engine.dtype=bfloat16"],
    "engine.kernels": ["engine.kernels=compiled"],
    "engine.threads": ["engine.threads=2"],
    "engine.micro_batch_tokens": ["engine.micro_batch_tokens=777"],
    "engine.sample_rows": ["engine.sample_rows=64"],
    "fork.key": [f"fork.key={'ab' * 32}", "fork.step=1"],
    "fork.step": [f"fork.key={'ab' * 32}", "fork.step=4"],
    "engine.server.model": ["engine.name=server", "engine.server.model=other"],
    "engine.server.alias": ["engine.name=server", "engine.server.alias=other"],
    "engine.verl.tensor_parallel": ["engine.name=verl", "engine.verl.tensor_parallel=2"],
    "engine.verl.extra": ["engine.name=verl", "engine.verl.extra=[a=b]"],
}
"""Setting -> a change of it that must change the keys: another value makes another policy."""

OUT_OF_KEY = {
    "recipe": ["recipe=mine"],
    "schedule.cycles": ["schedule.cycles=5"],
    "schedule.snapshots_at": ["schedule.snapshots_at=[3]"],
    "method.name": ["method.name=grpo"],
    "problems.dev_size": ["problems.dev_size=40"],
    "problems.test_size": ["problems.test_size=40"],
    "problems.dev": ["problems.dev=FILE"],
    "problems.test": ["problems.test=FILE"],
    "problems.fields.question": ["problems.fields.question=asked"],
    "problems.fields.answer": ["problems.fields.answer=told"],
    "problems.missing_answers": ["problems.missing_answers=skip"],
    "problems.long_prompts": ["problems.long_prompts=drop"],
    "problems.overlap": ["problems.overlap=drop"],
    "evaluation.benchmarks": ["evaluation.benchmarks=[test]"],
    "evaluation.final": ["evaluation.final=[dev]"],
    "evaluation.samples": ["evaluation.samples=5"],
    "evaluation.temperature": ["evaluation.temperature=1.0"],
    "evaluation.top_p": ["evaluation.top_p=0.95"],
    "evaluation.suffix": ["evaluation.suffix=Think."],
    "evaluation.grader": ["evaluation.grader=boxed"],
    "evaluation.budget": ["evaluation.budget=50"],
    "evaluation.server.concurrency": ["evaluation.server.concurrency=2"],
    "evaluation.server.retries": ["evaluation.server.retries=2"],
    "evaluation.server.timeout": ["evaluation.server.timeout=2.0"],
    "evaluation.server.limit": ["evaluation.server.limit=max_completion_tokens"],
    "evaluation.seed": ["evaluation.seed=3"],
    "evaluation.sampler": ["evaluation.sampler=vllm"],
    "guards.no_reward": ["guards.no_reward=stop"],
    "guards.length": ["guards.length=stop"],
    "guards.entropy": ["guards.entropy=stop"],
    "guards.timeouts": ["guards.timeouts=stop"],
    "guards.nonfinite": ["guards.nonfinite=warn"],
    "guards.mismatch": ["guards.mismatch=stop"],
    "guards.mismatch_steps": ["guards.mismatch_steps=7"],
    "guards.mismatch_rise": ["guards.mismatch_rise=0.1"],
    "guards.versions": ["guards.versions=stop"],
    "guards.disk": ["guards.disk=off"],
    "guards.steps": ["guards.steps=3"],
    "guards.truncated": ["guards.truncated=0.5"],
    "guards.length_factor": ["guards.length_factor=3"],
    "guards.entropy_share": ["guards.entropy_share=0.2"],
    "guards.timeout_share": ["guards.timeout_share=0.2"],
    "guards.disk_free": ["guards.disk_free=5"],
    "snapshots.state": ["snapshots.state=newest"],
    "snapshots.observed_extrema": ["snapshots.observed_extrema=keep"],
    "snapshots.observed_window": ["snapshots.observed_window=5"],
    "checkpoint_every": ["checkpoint_every=2"],
    "engine.verl.nodes": ["engine.verl.nodes=2"],
    "engine.verl.gpus_per_node": ["engine.verl.gpus_per_node=4"],
    "engine.verl.prompt_tokens": ["engine.verl.prompt_tokens=99"],
}
"""Setting -> a change of it that must leave the keys alone: the steps are the same."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A problem file and a model folder for the settings that want one."""
    folder = tmp_path_factory.mktemp("places")
    problems = [{"question": f"{number} + 1", "answer": str(number + 1)} for number in range(64)]
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    return {"FILE": str(folder / "problems.json"), "FOLDER": str(folder / "model")}


def chain(config: RunConfig) -> list[str]:
    """The keys of a run, its base named by what it is made from."""
    told = {"local": local_numerics, "verl": verl_numerics}.get(
        config.engine.name, lambda config: {"engine": "scripted"}
    )
    return keys.rl_keys(config, base_name(config), load_splits(config.problems).train.digest, told(config))


def place(overrides: Sequence[str], places: dict[str, str]) -> list[str]:
    for word, path in places.items():
        overrides = [override.replace(f"={word}", f"={path}") for override in overrides]
    return list(overrides)


def test_every_setting_is_in_the_key_or_out_of_it() -> None:
    assert IN_KEY.keys() | OUT_OF_KEY.keys() == set(field_paths(RunConfig))
    assert len(IN_KEY) + len(OUT_OF_KEY) == len(list(field_paths(RunConfig)))


def test_every_group_of_settings_is_in_one_of_the_lists_of_keys() -> None:
    assert {*keys.IN_KEY, *keys.OUT_OF_KEY, "model"} == set(RunConfig.model_fields)
    assert not set(keys.IN_KEY) & set(keys.OUT_OF_KEY)


@pytest.mark.parametrize("setting", IN_KEY)
def test_a_setting_that_makes_another_policy_changes_the_last_key(setting: str, places: dict[str, str]) -> None:
    changed = tiny(*BASIS, *place(IN_KEY[setting], places))
    assert changed != tiny(*BASIS)
    assert chain(changed)[-1] not in chain(tiny(*BASIS))


@pytest.mark.parametrize("setting", OUT_OF_KEY)
def test_a_setting_that_makes_no_other_policy_leaves_all_keys(setting: str, places: dict[str, str]) -> None:
    changed = tiny(*BASIS, *place(OUT_OF_KEY[setting], places))
    assert changed != tiny(*BASIS)
    ours = chain(tiny(*BASIS))
    assert chain(changed)[: len(ours)] == ours


def scripted_chain(*overrides: str) -> list[str]:
    return keys.rl_keys(tiny(*overrides), "base", "problems", {"engine": "scripted"})


def test_a_chain_has_one_key_per_step_and_the_base_in_front() -> None:
    ours = scripted_chain()
    assert len(ours) == len(set(ours)) == 17
    assert ours[0] == "base"


def test_a_key_is_the_hash_of_the_one_before_and_its_own_link() -> None:
    config = tiny()
    ours = scripted_chain()
    for step in (1, 9, 16):
        link = keys.rl_link(config, step, "problems", {"engine": "scripted"})
        assert ours[step] == keys.digest([ours[step - 1], link])


def test_a_longer_run_continues_a_shorter_one() -> None:
    assert scripted_chain("schedule.cycles=5")[:17] == scripted_chain("schedule.cycles=2")


@given(st.integers(1, 15))
def test_schedules_that_agree_up_to_a_step_share_the_keys_up_to_it(step: int) -> None:
    budgets = tiny().schedule.budgets
    parted = [budget + (number >= step) for number, budget in enumerate(budgets)]
    segments = "[" + ", ".join(f"{{budget: {budget}, steps: 1}}" for budget in parted) + "]"
    theirs = scripted_chain("schedule.shape=segments", f"schedule.segments={segments}")
    ours = scripted_chain()
    assert ours[: step + 1] == theirs[: step + 1]
    assert not set(ours[step + 1 :]) & set(theirs[step + 1 :])


def test_siri_and_grpo_of_equal_settings_share_their_keys() -> None:
    assert scripted_chain("method.name=siri") == scripted_chain("method.name=grpo")
    settings = tiny().method
    assert METHODS["siri"].link(settings) == METHODS["grpo"].link(settings)


def test_the_warm_up_of_the_learning_rate_enters_by_its_value() -> None:
    assert scripted_chain("optimizer.warmup_steps=0") == scripted_chain("optimizer.warmup_steps=1")
    halved = scripted_chain("optimizer.warmup_steps=4", "optimizer.learning_rate=2e-4")
    doubled = scripted_chain("optimizer.warmup_steps=8", "optimizer.learning_rate=4e-4")
    assert halved[:5] == doubled[:5]
    assert halved[5] != doubled[5]


def test_a_digest_does_not_depend_on_the_order_of_keys_but_on_every_value() -> None:
    assert keys.digest({"a": 1, "b": [2]}) == keys.digest({"b": [2], "a": 1})
    assert len({keys.digest(value) for value in (1, "1", 1.5, None, [1], {"a": 1}, {"a": 2})}) == 7


@pytest.mark.parametrize("setting", [*IN_KEY, "schedule.cycles", "schedule.snapshots_at", "method.name"])
def test_a_change_of_the_training_config_is_another_run(setting: str, places: dict[str, str]) -> None:
    changed = tiny(*BASIS, *place((IN_KEY | OUT_OF_KEY)[setting], places))
    assert run_id(changed) != run_id(tiny(*BASIS))


@pytest.mark.parametrize(
    "setting", sorted(OUT_OF_KEY.keys() - {"schedule.cycles", "schedule.snapshots_at", "method.name"})
)
def test_labels_evaluation_and_checkpoints_leave_the_run_the_same(setting: str, places: dict[str, str]) -> None:
    assert run_id(tiny(*BASIS, *place(OUT_OF_KEY[setting], places))) == run_id(tiny(*BASIS))


def run_id(config: RunConfig) -> str:
    return keys.run_id(config, chain(config))


def test_runs_that_keep_other_snapshots_of_the_same_steps_are_two() -> None:
    ours, theirs = tiny(), tiny("schedule.snapshots_at=[3]")
    assert scripted_chain() == scripted_chain("schedule.snapshots_at=[3]")
    assert keys.run_id(ours, scripted_chain()) != keys.run_id(theirs, scripted_chain())


def test_a_schedule_written_in_two_ways_is_one_run() -> None:
    ways = ["schedule.shape=constant"], ["schedule.shape=constant", "schedule.min_budget=20"]
    assert len({keys.run_id(tiny(*way), scripted_chain(*way)) for way in ways}) == 1


def test_the_base_of_a_fork_is_in_its_id_though_not_in_its_steps() -> None:
    config = tiny(f"fork.key={'ab' * 32}", "fork.step=4")
    chains = [keys.rl_keys(config, base, "problems", {"engine": "scripted"}) for base in ("one", "other")]
    assert chains[0][1:] == chains[1][1:]
    assert keys.run_id(config, chains[0]) != keys.run_id(config, chains[1])


def test_a_link_holds_a_place_for_all_that_makes_a_step() -> None:
    link = keys.rl_link(tiny(), 1, "problems", {"engine": "scripted"})
    assert link.keys() == {
        "budget", "learning_rate", "optimizer", "method", "rollout", "draws", "reference", "seed", "problems", "prompt",
        "grader", "numerics",
    }  # fmt: skip
    assert link["method"].keys() == {"functions", "scope", "version", "shared", "settings"}
    assert link["prompt"].keys() == {
        "rules", "template", "suffix", "system", "arguments", "date", "thinking", "stop",
    }  # fmt: skip


def test_a_rule_that_grades_otherwise_makes_other_keys_of_its_own_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = scripted_chain(), scripted_chain("problems.grader=boxed")
    monkeypatch.setattr(rules, "version", lambda library: "9.9")
    monkeypatch.setattr(keys, "grader_version", rules.grader_version.__wrapped__)
    assert scripted_chain() == ours
    assert scripted_chain("problems.grader=boxed")[1] != theirs[1]
    monkeypatch.setitem(rules.VERSIONS, "exact", 2)
    assert scripted_chain()[1] != ours[1]


def test_other_words_of_the_laptop_make_another_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    before = chain(tiny(*BASIS))[0]
    monkeypatch.setattr(laptop, "VOCABULARY", (*laptop.VOCABULARY, "<0>"))
    assert chain(tiny(*BASIS))[0] != before


def test_names_stay_what_they_were() -> None:
    """Golden: another way of hashing would orphan every store there is."""
    assert keys.base_key("0" * 64, {}) == "84f72cb8e446eaa6479c681900bffe5ad76a81e626a3fe812644e102d9d55446"
    assert keys.fold("base", [{"budget": 36, "seed": 0}]) == [
        "base",
        "ce262a86caa770be5d3b140031fa7919623d43987ef65403484671483c4e1eae",
    ]


def test_seeds_are_those_of_every_machine_and_part_by_seed_purpose_and_step() -> None:
    assert seed_for(0, "sample", 1) == 4703416825124098946
    drawn = {seed_for(seed, purpose, step) for seed in (0, 1) for purpose in ("a", "b") for step in (0, 1, 2)}
    assert len(drawn) == 12
    assert all(0 <= seed < 2**63 for seed in drawn)


def test_a_base_is_named_by_the_content_of_its_folder_not_by_the_path(tmp_path: Path) -> None:
    names = []
    for place, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").write_bytes(content)
        names.append(base_name(tiny("engine.name=local", f"model.base={tmp_path / place}")))
    assert names[0] == names[1] != names[2]


def test_a_folder_is_one_base_by_whichever_path_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    (model / "templates").mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"one")
    (model / "templates" / "tool.jinja").write_text("one")
    (tmp_path / "link").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def name(path: str) -> str:
        return base_name(tiny("engine.name=local", f"model.base={path}"))

    paths = (str(model), "./model", "model", "~/model", str(tmp_path / "link"), "./link/../model")
    assert len({name(path) for path in paths}) == 1
    before = name("model")
    (model / "README.md").write_text("for people")
    (model / ".cache").mkdir()
    (model / ".cache" / "etag").write_text("1")
    assert name("model") == before
    (model / "templates" / "tool.jinja").write_text("two")
    assert name("model") != before


def test_new_weights_at_the_same_place_are_another_base_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    config, before = tiny("engine.name=local", f"model.base={tmp_path}"), path.stat()
    first = base_name(config)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert base_name(config) != first
