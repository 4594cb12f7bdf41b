"""The child process: vLLM's offline engine over one order, a line on stdout for every problem as it is answered."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from siri.processes.reaper import end_with_parent

MOST_BATCHED = 4096
"""Tokens of a forward pass on a CPU, unless one prompt with its response may have more."""


def keep_stdout() -> IO[str]:
    """The pipe to the parent, for answers alone: what vLLM and its processes print goes to the log."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.register_at_fork(after_in_child=pipe.close)  # the pipe ends when this process does, whoever is left below it
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def start(engine: dict[str, Any]) -> Any:
    """vLLM's offline engine as an order asks for it."""
    from vllm import LLM
    from vllm.platforms import current_platform

    if current_platform.device_type == "cpu":
        # a prompt read in parts sets its generator back, which a generator on a CPU cannot do: whole prompts alone
        most = max(engine["max_model_len"], MOST_BATCHED)
        engine = {**engine, "enable_chunked_prefill": False, "max_num_batched_tokens": most}
    return LLM(
        **engine,
        trust_remote_code=False,
        load_format="safetensors",
        generation_config="vllm",
        logprobs_mode="processed_logprobs",
    )


def answers(llm: Any, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Per problem, as each is done: its place in the order, the prompt that vLLM read, and every response.

    Places go on from those of earlier orders to the same engine.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    settings = [
        SamplingParams(
            **order["sampling"],
            seed=seed,
            ignore_eos=True,  # the end tokens are those of the order and no others
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        for seed in order["seeds"]
    ]
    llm.enqueue([{"prompt_token_ids": ids} for ids in order["prompts"]], settings, use_tqdm=False)
    while llm.llm_engine.has_unfinished_requests():
        for output in llm.llm_engine.step():
            responses = [[list(one.token_ids), one.logprobs.logprobs, one.finish_reason] for one in output.outputs]
            place = int(output.request_id)  # vLLM numbers requests from 0 as they come, and sorts by that itself
            yield {"place": place, "prompt": output.prompt_token_ids, "responses": responses}


def main() -> None:
    """Answer the order that argv names; the first line says what answers."""
    end_with_parent()
    pipe = keep_stdout()
    import vllm
    from vllm.platforms import current_platform

    told = {"vllm": vllm.__version__, "device": current_platform.device_type}
    print(json.dumps(told), file=pipe, flush=True)
    order = json.loads(Path(sys.argv[1]).read_text())
    for answer in answers(start(order["engine"]), order):
        print(json.dumps(answer), file=pipe, flush=True)


if __name__ == "__main__":
    main()
