"""The local engine, compiled and on torch, against TRL's GRPOTrainer: CPU seconds per step, in turns, on one thread.

`python -m benchmarks.local_engine` prints the table and where siri's time goes. benchmarks/README.md tells how to get
the peer and how to read it; without the peer siri is measured alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.workload import CASES, write_workload

HERE = Path(__file__).parent
PEER_PYTHON = HERE / ".peer" / "bin" / "python"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}

Result = dict[str, Any]


def commands(folder: Path, steps: int) -> dict[str, list[str]]:
    """Who is measured, in turns, and how each is started on a workload; the peer only if it is installed."""
    arguments = [str(folder), "--steps", str(steps)]
    ours = [sys.executable, "-m", "benchmarks.ours_local", *arguments]
    engines = {"compiled": [*ours, "--kernels", "compiled"], "torch": [*ours, "--kernels", "torch"]}
    peer = {"trl": [str(PEER_PYTHON), str(HERE / "peer_trl.py"), *arguments]}
    return engines | peer if PEER_PYTHON.exists() else engines


def run(command: Sequence[str]) -> Result:
    """The JSON line that a measuring process printed last; what it complained of, where it failed."""
    done = subprocess.run(command, env=os.environ | ONE_THREAD, cwd=HERE.parent, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} … exited with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(cases: Sequence[str], rounds: int, steps: int, minibatches: int) -> dict[str, dict[str, list[Result]]]:
    """case -> engine -> a result per round; siri, peer, siri, peer, … in processes of their own."""
    results: dict[str, dict[str, list[Result]]] = {case: {} for case in cases}
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            write_workload(CASES[case], minibatches, Path(scratch) / case)
        for number in range(1, rounds + 1):
            for case in cases:
                for engine, command in commands(Path(scratch) / case, steps).items():
                    result = run(command)
                    results[case].setdefault(engine, []).append(result)
                    print(f"round {number} {case} {engine}: {result['total']:.3f} s", file=sys.stderr, flush=True)
                require_same_work([found[-1] for found in results[case].values()])
    return results


def require_same_work(results: Sequence[Result]) -> None:
    """Raise unless model and prompts had the same size; the lengths were checked where they were written."""
    sizes = {(result["parameters"], result["prompt_tokens"]) for result in results}
    if len(sizes) > 1:
        raise SystemExit(f"the engines were given different work: (parameters, prompt tokens) {sizes}")


def median(results: Sequence[Result], name: str) -> float:
    """The median over the rounds of one number, itself a median over steps."""
    return statistics.median(result[name] for result in results)


def show_table(results: dict[str, dict[str, list[Result]]]) -> None:
    """A line per case: CPU seconds per step (generation alone), then each engine over the compiled kernels."""
    print(f"{'CPU s a step (generation)':<36} {'compiled':>15}  others, / compiled (rounds)")
    for case, engines in results.items():
        line = f"{case}  {CASES[case].title:<32} {_seconds(engines['compiled'])}"
        for name in (name for name in engines if name != "compiled"):
            ratio = median(engines[name], "total") / median(engines["compiled"], "total")
            pairs = zip(engines["compiled"], engines[name], strict=True)
            rounds = [other["total"] / ours["total"] for ours, other in pairs]
            line += f"  {name} {_seconds(engines[name])} {ratio:.2f}x ({min(rounds):.2f}-{max(rounds):.2f})"
        print(line)


def _seconds(results: Sequence[Result]) -> str:
    return f"{median(results, 'total'):>7.3f} ({median(results, 'generation'):.3f})"


def show_profile(results: dict[str, dict[str, list[Result]]]) -> None:
    """A column per case: shares of a step, and of the machine's fp32 matmul rate, in the middle round."""
    for kernels in ("compiled", "torch"):
        columns = [_middle(engines[kernels]) for engines in results.values()]
        print(f"\n{'where a step goes, ' + kernels:<36} " + " ".join(f"{case:>7}" for case in results))
        for name in columns[0]["profile"]:
            print(f"{name:<36} " + " ".join(f"{column['profile'][name]:>7.1%}" for column in columns))
        for name in columns[0]["matmul_share"]:
            shares = " ".join(f"{column['matmul_share'][name]:>7.1%}" for column in columns)
            print(f"{name + ', of the matmul rate':<36} {shares}")
        rates = " ".join(f"{column['matmul_rate'] / 1e9:>7.1f}" for column in columns)
        print(f"{'matmul rate, GFLOP/s':<36} {rates}")


def _middle(found: Sequence[Result]) -> Result:
    return sorted(found, key=_total)[(len(found) - 1) // 2]


def _total(result: Result) -> float:
    return result["total"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="measured steps in each process, after two of warm-up")
    parser.add_argument(
        "--minibatches", type=int, default=2, help="optimizer steps per batch, for both; the recipe's 2"
    )
    parser.add_argument("--json", type=Path, help="keep every result in this file")
    options = parser.parse_args()
    results = measure(options.cases, options.rounds, options.steps, options.minibatches)
    show_table(results)
    show_profile(results)
    if not PEER_PYTHON.exists():
        print("\nTRL was not measured: benchmarks/README.md says how to make its environment, benchmarks/.peer")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
