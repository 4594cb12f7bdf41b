"""How long the numbers of an evaluation take: `python -m benchmarks.evaluation [--problems 500 --samples 64]`.

Prints one JSON line per question, in seconds on the wall: `intervals` those of accuracy, length and pass@k; `summary`
the whole report; `budgets` accuracy at 16 budgets, by a byte-level BPE tokenizer, for responses that think, box some
answers in their thoughts and one after them. Equal answers are graded once.
"""

import argparse
import json
import random
import time

import numpy as np
import pandas as pd
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from siri.evaluation.behavior import WORDS, count_words
from siri.evaluation.budgets import cut_and_grade, even_budgets
from siri.evaluation.report import by_problem, summarise
from siri.evaluation.statistics import bootstrap_mean, pass_at_k
from siri.problems import ProblemSettings, decode_responses
from siri.problems.grading import grade_with_answers

SENTENCES = (
    "So we compute the sum of the first terms and see what is left of it. ",
    "Wait, that cannot be right; let me look. ",
    r"Alternatively, take \(x^2 + 2x + 1 = (x+1)^2\) and divide by the larger root. ",
    r"This gives \boxed{12}, I think. ",
)
SETTINGS = ProblemSettings(grader="boxed")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with the words of the sentences."""
    made = Tokenizer(BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(SENTENCES * 3, BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False)


def make_rows(problems: int, samples: int, length: int, tokenizer: PreTrainedTokenizerFast) -> pd.DataFrame:
    """Graded samples with a mean of about so many tokens; an eighth of them were cut."""
    rng = random.Random(0)
    encoded = {text: tokenizer.encode(text, add_special_tokens=False) for text in SENTENCES}
    rows = []
    for problem in range(problems):
        skill = rng.random()
        for _ in range(samples):
            answer = problem % 50 if rng.random() < skill else rng.randrange(1000)
            end = rf"</think> The answer is \boxed{{{answer}}}."
            ids, wanted = [], rng.expovariate(1 / length)
            while len(ids) < wanted:
                ids += encoded[rng.choices(SENTENCES, (8, 4, 4, 1))[0]]
            finished = rng.random() < 7 / 8
            ids += tokenizer.encode(end, add_special_tokens=False) if finished else []
            rows.append((f"p{problem}", np.array(ids, dtype=np.int32), str(problem % 50), finished))
    frame = pd.DataFrame(rows, columns=["problem", "tokens", "answer", "finished"])
    frame["length"], frame["opening"], frame["entropy"] = frame["tokens"].map(len), "<think>", 0.5
    frame["text"] = decode_responses(frame["tokens"].tolist(), tokenizer)
    seen = (frame["opening"] + frame["text"]).tolist()
    grades = grade_with_answers(seen, frame["answer"].tolist(), "boxed", frame["finished"].tolist())
    words = pd.DataFrame([count_words(text) for text in frame["text"]], columns=list(WORDS)).add_prefix("word_")
    graded = {"verdict": grades.verdicts, "found": grades.found, "correct": [v == "correct" for v in grades.verdicts]}
    return pd.concat([frame.assign(**graded), words], axis=1)


def intervals(rows: pd.DataFrame) -> dict[str, float]:
    """Seconds of the intervals of accuracy, mean length, and pass@k for every power of two."""
    correct, lengths = by_problem(rows, "correct"), by_problem(rows, "length")
    most = len(correct[0])
    began = time.perf_counter()
    bootstrap_mean(correct)
    bootstrap_mean(lengths, bounds=(0.0, float(max(map(max, lengths)))))
    for k in [2**power for power in range(most.bit_length()) if 2**power <= most]:
        bootstrap_mean(pass_at_k(correct, k)[:, None].clip(0, 1).tolist())
    return {"seconds": time.perf_counter() - began}


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """Seconds of the whole report, maj@k included."""
    began = time.perf_counter()
    report = summarise(rows, "bench", int(rows["length"].max()), 0.6, 0, "boxed")
    return {"seconds": time.perf_counter() - began, "accuracy": report.accuracy.mean}


def by_budget(rows: pd.DataFrame, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Seconds of accuracy, with intervals, at 16 budgets."""
    began = time.perf_counter()
    budgets = even_budgets(int(rows["length"].max()))
    parts = cut_and_grade(rows, budgets, tokenizer, SETTINGS)
    accuracies = [bootstrap_mean(by_problem(part, "correct")).mean for _, part in parts]
    return {"seconds": time.perf_counter() - began, "lowest": accuracies[0], "highest": accuracies[-1]}


def main() -> None:
    """Measure what argv asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=1000, help="about the mean tokens of a response")
    options = parser.parse_args()
    tokenizer = make_tokenizer()
    rows = make_rows(options.problems, options.samples, options.length, tokenizer)
    size = {"responses": len(rows), "tokens": int(rows["length"].sum())}
    print(json.dumps({"samples": size}), flush=True)
    print(json.dumps({"intervals": intervals(rows)}), flush=True)
    print(json.dumps({"summary": summary(rows)}), flush=True)
    print(json.dumps({"budgets": by_budget(rows, tokenizer)}), flush=True)


if __name__ == "__main__":
    main()
