"""verl's agent loop for one response: the prompt's token ids and the end tokens as siri read them, the row's budget."""

from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput
from verl.utils.profiler import simple_timer


class BudgetAgentLoop(AgentLoopBase):
    """One prompt, one response, no more tokens than the trainer's budget for this problem at this step."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:  # verl's signature
        """Sample; `kwargs` is the row that the trainer put into the batch."""
        timing: dict[str, float] = {}
        prompt, ends = ([int(token) for token in kwargs[name]] for name in ("prompt_ids", "eos_ids"))
        budget = int(kwargs["budget"])
        asked = {"max_tokens": budget, "stop_token_ids": ends, "ignore_eos": True}  # these ends and no others
        with simple_timer("generate_sequences", timing):
            output = await self.server_manager.generate(
                request_id=uuid4().hex,
                prompt_ids=prompt,
                sampling_params=sampling_params | asked,  # a copy: the group shares the dict
            )
        response = output.token_ids
        if not 1 <= len(response) <= budget:
            raise RuntimeError(f"the rollout wrote {len(response)} tokens where {budget} were allowed")
        return AgentLoopOutput(
            prompt_ids=prompt,
            response_ids=response,
            response_mask=[1] * len(response),
            response_logprobs=output.log_probs,
            num_turns=2,
            metrics=timing,
            extra_fields=output.extra_fields,
        )
