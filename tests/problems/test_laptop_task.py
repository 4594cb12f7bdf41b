import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.problems import Problem, encode_prompt, laptop, split_of
from siri.problems.grading import grade
from siri.problems.laptop import Chain

values = st.integers(0, 10)
steps = st.tuples(st.integers(1, 10), st.integers(1, 10))
chains = st.builds(Chain, values, st.lists(steps, min_size=1, max_size=8).map(tuple))

FAST = re.compile(r"([A-P]) \*(\d+) \+(\d+) (\d+)")
VERIFICATION = re.compile(r"(?:wait|hold_on) ([A-P]) (\d+) \*(\d+) (\d+) \1 \4 \+(\d+) (\d+)")


def tokenizer():
    return laptop.tokenizer()


def test_a_chain_reads_as_in_the_specification():
    chain = Chain(8, ((9, 8), (5, 3)))
    assert chain.question == "A *9 +8 B *5 +3 ; 8"
    assert chain.answer == "3 7"


def test_with_one_step_the_answer_holds_the_start_value():
    assert Chain(4, ((1, 10),)).answer == "4 3"


@given(chains)
def test_the_answer_is_the_last_two_values(chain):
    written = [chain.start]
    for a, b in chain.steps:
        written.append((written[-1] * a + b) % 11)
    assert chain.answer == f"{written[-2]} {written[-1]}"


def test_the_vocabulary_is_the_one_that_was_measured():
    words = laptop.VOCABULARY
    assert len(words) == len(set(words)) == 61 + 24
    assert words[:6] == ("<pad>", "<bos>", "<eos>", "<think>", "</think>", ";")
    assert words[6:12] == ("wait", "hold_on", "alternatively", "so", "compute", "hmm")
    assert words[12:23] == tuple(map(str, range(11)))
    assert words[23:45] == tuple(f"*{n}" for n in range(11)) + tuple(f"+{n}" for n in range(11))
    assert words[45:61] == tuple("ABCDEFGHIJKLMNOP")
    assert words[61:] == laptop.CONTROLS


def test_control_tokens_carry_a_number_of_any_size_and_stand_in_no_trace():
    assert tuple(f"<{digit}>" for digit in range(10)) == laptop.DIGITS
    used = {word for question, trace in laptop.warmup_traces(0, 500) for word in (*question.split(), *trace)}
    assert not used & set(laptop.CONTROLS)
    asked = Problem("x", "A *9 +8 ; 8 <most> <7> <2>", "3 7")
    assert tokenizer().decode(encode_prompt(asked, tokenizer(), "chat")).endswith("8 <most> <7> <2> <think>")


def test_lengths_and_easy_steps_come_as_often_as_they_should():
    rng = random.Random(0)
    drawn = [laptop.draw_chain(rng, 0.5) for _ in range(8000)]
    counts = [sum(len(chain.steps) == n for chain in drawn) for n in range(1, 9)]
    assert all(900 < count < 1100 for count in counts)
    factors = [a for chain in drawn for a, _ in chain.steps]
    assert 0.49 < factors.count(1) / len(factors) < 0.51
    assert set(factors) == set(range(1, 11))
    assert {b for chain in drawn for _, b in chain.steps} == set(range(1, 11))
    assert {chain.start for chain in drawn} == set(range(11))


@pytest.mark.parametrize("easy", [0.0, 1.0])
def test_the_easy_setting_reaches_its_limits(easy):
    problems = laptop.generate("train", 200, seed=0, easy=easy)
    assert all((" *1 " in f" {p.question}") == bool(easy) for p in problems)


def test_the_same_seed_gives_the_same_problems_for_ever():
    # By value: a run is named by its problems, so another Python or another numpy must not change them.
    problems = laptop.generate("train", 200, seed=0)
    assert problems.problems[0] == Problem("6ce97daeb3b9", "A *5 +5 B *5 +6 C *9 +4 D *7 +10 E *1 +9 ; 9", "7 5")
    assert problems.digest == "b89f9db5b9e68742d638b165e77fcb0487fba057668cc68a265887aaca742d3a"


def test_another_seed_gives_other_problems():
    assert laptop.generate("train", 5, seed=0).digest != laptop.generate("train", 5, seed=1).digest


def test_a_longer_set_begins_with_the_shorter_one():
    assert laptop.generate("dev", 40, seed=3).problems[:25] == laptop.generate("dev", 25, seed=3).problems


def test_repeats_stay_in_train_and_go_from_dev_and_test():
    train = laptop.generate("train", 4000, seed=0)
    assert len({p.question for p in train}) < len(train)
    for split in ("dev", "test"):
        held_out = laptop.generate(split, 400, seed=0)
        assert len({p.question for p in held_out}) == 400


def test_an_id_belongs_to_one_question():
    problems = [*laptop.generate("train", 4000, seed=0), *laptop.generate("dev", 400, seed=0)]
    assert len({p.id for p in problems}) == len({p.question for p in problems})


@given(chains, st.integers(0, 2**32))
def test_a_trace_is_made_of_whole_steps_and_ends_in_an_answer(chain, seed):
    text = " ".join(laptop.trace(chain, random.Random(seed)))
    assert len(text.split()) <= laptop.TRACE_LIMIT
    if not text.endswith("<eos>"):
        assert len(text.split()) == laptop.TRACE_LIMIT
        return
    thought, answer = text.split(" </think> ")
    rest = re.sub(FAST, "", re.sub(VERIFICATION, "", thought))
    assert set(rest.split()) <= {"so", "compute", "hmm", "alternatively"}
    assert re.fullmatch(r"\d+ \d+ <eos>", answer)
    assert answer.split()[1] == re.findall(r"\d+", thought)[-1]  # the latest result is the one carried on


@given(chains, st.integers(0, 2**32))
def test_a_trace_restates_the_step_it_works_on(chain, seed):
    text = " ".join(laptop.trace(chain, random.Random(seed)))
    own = dict(zip("ABCDEFGH", chain.steps, strict=False))
    for label, a, b, _ in re.findall(FAST, text):
        assert own[label] == (int(a), int(b))
    for label, _, a, _, b, _ in re.findall(VERIFICATION, text):
        assert own[label] == (int(a), int(b))


def test_traces_overthink_as_much_as_was_measured(monkeypatch):
    cut = [len(trace) for _, trace in laptop.warmup_traces(0, 4000)]
    assert sum(cut) / len(cut) == pytest.approx(75, abs=1.5)
    monkeypatch.setattr(laptop, "TRACE_LIMIT", 10_000)
    whole = [trace for _, trace in laptop.warmup_traces(0, 4000)]
    assert sum(map(len, whole)) / len(whole) == pytest.approx(80, abs=2)
    said = " ".join(word for trace in whole for word in trace)
    for word, per_trace in {"wait": 4.25, "hold_on": 1.41, "alternatively": 0.61, "so": 1.41, "hmm": 1.19}.items():
        assert said.split().count(word) / len(whole) == pytest.approx(per_trace, rel=0.1)


def test_warm_up_questions_are_train_questions():
    assert all(split_of(question) == "train" for question, _ in laptop.warmup_traces(7, 300))


def test_warm_up_traces_follow_their_seed():
    assert laptop.warmup_traces(7, 5) == laptop.warmup_traces(7, 9)[:5]
    assert laptop.warmup_traces(7, 5) != laptop.warmup_traces(8, 5)


def test_some_warm_up_traces_are_right_and_many_are_wrong():
    pairs = laptop.warmup_traces(0, 2000)
    right = 0
    for question, trace in pairs:
        numbers = [int(n) for n in re.findall(r"\d+", question)]
        *flat, start = numbers
        chain = Chain(start, tuple(zip(flat[::2], flat[1::2], strict=True)))
        right += grade(" ".join(trace), chain.answer, "exact", trace[-1] == "<eos>") == "correct"
    assert 0.3 < right / len(pairs) < 0.8


def test_the_prompt_opens_a_thought():
    chain = Chain(8, ((9, 8), (5, 3)))
    tokens = tokenizer()
    ids = encode_prompt(Problem("x", chain.question, chain.answer), tokens, "chat")
    assert type(ids) is list
    assert tokens.convert_ids_to_tokens(ids) == ["<bos>", "A", "*9", "+8", "B", "*5", "+3", ";", "8", "<think>"]


def test_token_ids_are_places_in_the_vocabulary():
    tokens = tokenizer()
    assert len(tokens) == 85
    assert tokens.convert_tokens_to_ids(list(laptop.VOCABULARY)) == list(range(85))
    assert (tokens.pad_token_id, tokens.bos_token_id, tokens.eos_token_id) == (0, 1, 2)


def test_a_response_decodes_to_what_it_says():
    tokens = tokenizer()
    text = "A *9 +8 3 hold_on A 8 *9 6 A 6 +8 3 </think> 8 3 <eos>"
    ids = tokens(text)["input_ids"]
    assert tokens.decode(ids) == text
    assert tokens.decode(ids, skip_special_tokens=True) == text.removesuffix(" <eos>")


def test_a_saved_tokenizer_comes_back_as_it_was(tmp_path: Path):
    from transformers import AutoTokenizer, LlamaConfig

    tokens = tokenizer()
    tokens.save_pretrained(tmp_path)
    LlamaConfig(vocab_size=85).save_pretrained(tmp_path)  # beside a model, as an export writes it
    again = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    problem = laptop.generate("dev", 1, seed=0).problems[0]
    assert again.get_vocab() == tokens.get_vocab()
    assert encode_prompt(problem, again, "chat") == encode_prompt(problem, tokens, "chat")
    assert (again.pad_token, again.bos_token, again.eos_token) == ("<pad>", "<bos>", "<eos>")
