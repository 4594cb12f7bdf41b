"""How losses per token become one number: as a weight for the tokens of each response, over the whole minibatch."""

from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"]


def token_weights(lengths: Tensor, aggregation: Aggregation) -> Tensor:
    """[B] weight of each token of a response, such that Σ weight·loss is the aggregated loss of the minibatch.

    lengths: [B] response tokens, of every response of the minibatch, those without advantage included: they stay in
    the denominator. token-mean is DAPO's, seq-mean-token-mean GRPO's first one, seq-mean-token-sum Dr. GRPO's (up to
    a constant).
    """
    ones = torch.ones(len(lengths))
    if aggregation == "token-mean":
        return ones / lengths.sum()
    if aggregation == "seq-mean-token-sum":
        return ones / len(lengths)
    return 1 / (len(lengths) * lengths.float())
