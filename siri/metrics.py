"""Every metric name with its meaning and unit; records, flows, dashboards and tests use no other."""

METRICS: dict[str, str] = {
    "rollout/budget": "most response tokens allowed at this step, L(t); tokens",
    "rollout/length": "mean response length, <eos> included; tokens",
    "rollout/length_correct": "mean length of the correct responses, 0 when there are none; tokens",
    "rollout/truncated": "responses cut by the budget; fraction",
    "rollout/entropy": "mean entropy of the token distributions; nats",
    "rollout/accuracy": "responses that are correct within the budget; fraction",
    "rollout/unparsed": "responses in which the grader found no answer; fraction",
    "rollout/timeout": "responses whose grading ran out of time; fraction",
    "rollout/tokens": "response tokens sampled in this step, those of dropped groups included; tokens",
    "rollout/draws": "times that the step drew problems: more than once where a method drops groups",
    "rollout/responses": "responses sampled in this step, those of dropped groups included",
    "rollout/dropped": "groups of the step that the method dropped; fraction",
    "reward/mean": "mean reward after the method's shaping",
    "reward/varied_groups": "groups whose rewards differ, the only ones that teach; fraction",
    "update/loss": "policy loss of the step, mean over its minibatches",
    "update/grad_norm": "gradient norm before clipping, mean over the minibatches that stepped",
    "update/ppo_clip": "tokens of the step whose ratio the PPO clip acted on; fraction",
    "update/kl": "mean of −log ratio, old policy to new, over the tokens trained on; nats",
    "update/learning_rate": "learning rate of the step",
    "mismatch/mean": "mean |log-probability by the trainer − by the sampler| of a token, same weights; nats",
    "mismatch/max": "the largest of them in the step; nats",
    "mismatch/k3": "mean of r − 1 − log r, r = trainer / sampler: the KL divergence of the two (k3 estimate); nats",
    "time/sample": "seconds spent sampling",
    "time/update": "seconds spent on the update",
    "warmup/loss": "cross-entropy of the warm-up traces; nats per token",
    "warmup/grad_norm": "gradient norm before clipping",
    "warmup/learning_rate": "learning rate of the warm-up step",
    "warmup/tokens": "trace tokens of the warm-up step",
}
"""Metrics of a step, beside those of its method, which `Method.metrics` names: `method/…`."""

EVALUATION_METRICS: dict[str, str] = {
    "accuracy": "pass@1: mean over problems of the fraction of samples that are correct",
    "length": "mean response tokens",
    "truncated": "samples cut by the budget; fraction",
    "entropy": "mean entropy of the token distributions; nats",
    "unparsed": "samples without an answer; fraction",
}
"""Metrics of an evaluation; in MLflow behind the benchmark's name (`dev/accuracy`) or the extremum (`low/accuracy`)."""
