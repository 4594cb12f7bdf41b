"""verl's reward manager: it grades one response and does nothing else; rewards are the method's, on the driver."""

from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from siri.engines.verl.order import current_order
from siri.problems.grading import grade


class GradingRewardManager(RewardManagerBase):
    """Says of a response what siri.problems.grading says of it; text and verdict travel with the row."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **_: Any) -> None:  # verl passes more
        super().__init__(config, tokenizer, compute_score)
        self.grader = current_order().config.problems.grader

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """The score (1 correct, 0 not), the verdict and the text of the one response in `data`."""
        row = data[0]
        about = row.non_tensor_batch
        width = row.batch["responses"].shape[-1]
        length = int(row.batch["attention_mask"][-width:].sum())
        tokens = row.batch["responses"][:length].tolist()
        finished = tokens[-1] in list(about["eos_ids"])
        told: dict[str, Any] = await self.loop.run_in_executor(None, self._grade, tokens, finished, about)
        return told

    def _grade(self, tokens: list[int], finished: bool, about: Any) -> dict[str, Any]:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        verdict = grade(f"{about['opening']}{text}", str(about["answer"]), self.grader, finished)
        told = {"verdict": verdict, "text": text, "finished": finished}
        return {"reward_score": float(verdict == "correct"), "reward_extra_info": told}
