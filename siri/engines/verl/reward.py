"""verl's reward manager: it grades one response and does nothing else; rewards are the method's, on the driver."""

from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from siri.engines.verl.order import current_order
from siri.problems import decode_responses
from siri.problems.grading import grade_with_answers, grader_version


class GradingRewardManager(RewardManagerBase):
    """Says of a response what siri.problems.grading says of it; text and verdict travel with the row."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **_: Any) -> None:  # verl passes more
        super().__init__(config, tokenizer, compute_score)
        self.settings = current_order().config.problems

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
        settings = self.settings
        (text,) = decode_responses([tokens], self.tokenizer, settings.thinking)
        read = f"{about['opening']}{text}"
        grades = grade_with_answers([read], [str(about["answer"])], settings.grader, [finished], settings.thinking)
        (found,), (verdict,) = grades
        told = {"verdict": verdict, "found": found, "text": text, "finished": finished}
        told["grader"] = grader_version(settings.grader)
        return {"reward_score": float(verdict == "correct"), "reward_extra_info": told}
