"""The settings of a run, group by group; defaults are the paper's (arXiv 2509.25176)."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from siri.methods import METHODS
from siri.methods.settings import MethodSettings
from siri.problems import ProblemSettings
from siri.problems.grading import GraderName
from siri.schedule import LengthSchedule
from siri.settings import LABEL, Settings

EngineName = Literal["local", "scripted", "scripted-process", "server", "verl"]
NAMED_BASES = ("laptop", "smollm2-135m")
"""What `model.base` may name that is neither a folder nor on the hub."""


class RolloutSettings(Settings):
    """How a step samples."""

    batch_size: Annotated[int, Field(ge=1)] = 128
    """Problems per step."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Responses per problem (G); at least 2, since a response learns by how it differs from its group.

    The paper does not state it, 8 is DeepScaleR's.
    """
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Sampling temperature of the rollouts."""
    old_logprobs: Literal["sampler", "trainer"] = "sampler"
    """Whose log-probabilities the ratio is taken against, of the policy before the step.

    `sampler`: those that sampling leaves; `trainer`: its forward pass over the same tokens, before the first update.
    Left out, it is `trainer` in bfloat16, where the two differ by up to 0.01 before any update, and on verl, which
    always recomputes them; in float32 they agree to 1e-5, and it is `sampler`.
    """


class OptimizerSettings(Settings):
    """AdamW of the RL steps."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    """Learning rate after its warm-up; constant from there on."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from 0 in a straight line."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the gradient's running mean."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the squared gradient's running mean."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator of the update."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay; 0 in RL."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of one step; a function of the step alone, so that a longer run continues a shorter one."""
        return self.learning_rate * min(1.0, step / max(self.warmup_steps, 1))


class ShapeSettings(Settings):
    """Size of the laptop model, a Llama-shaped decoder."""

    width: Annotated[int, Field(ge=8)] = 64
    """Width of the residual stream."""
    layers: Annotated[int, Field(ge=1)] = 3
    """Decoder layers."""
    heads: Annotated[int, Field(ge=2)] = 4
    """Attention heads; the width must be an even multiple of them."""
    feed_forward: Annotated[int, Field(ge=8)] = 176
    """Inner width of the SwiGLU feed-forward."""
    context: Annotated[int, Field(ge=64)] = 256
    """Most tokens of prompt and response together."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads or self.width // self.heads % 2:
            raise ValueError(f"width={self.width}, heads={self.heads}: the width must be an even multiple of the heads")
        return self


class WarmupSettings(Settings):
    """Supervised warm-up that makes a base: it learns to solve the task, and to overthink."""

    traces: Literal["laptop", "sums"] = "laptop"
    """What is imitated: `laptop`, the laptop base's own traces, and nothing where a model is taken over; `sums`, worked
    solutions of chain sums as `problems.source=sums` has them, for a model that is taken over."""

    steps: Annotated[int, Field(ge=1)] = 750
    """Warm-up steps."""
    batch_size: Annotated[int, Field(ge=1)] = 22
    """Traces per warm-up step."""
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    """Peak learning rate; rises over 40 steps (`sums`: 10), then falls in a straight line to 5 % of it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay of the warm-up."""


class ModelSettings(Settings):
    """The policy before RL."""

    base: str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    """`laptop` (a tiny model, made here by warm-up), `smollm2-135m` (a small language model, fetched once), a folder
    with a Hugging Face causal LM, or a hub name (verl)."""
    base_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the laptop base's initialisation and of a base's warm-up; `seed` varies RL alone."""
    shape: ShapeSettings = ShapeSettings()
    """Size of the laptop model."""
    warmup: WarmupSettings = WarmupSettings()
    """How the laptop base is made, or a model that is taken over is prepared."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.base == "laptop" and self.warmup.traces != "laptop":
            raise ValueError(
                f"warmup.traces={self.warmup.traces}: base=laptop knows the words of its own task alone; allowed is "
                "warmup.traces=laptop, or another base"
            )
        return self


class VerlSettings(Settings):
    """What the verl engine alone asks for; the rest of its launch follows from the other settings."""

    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines of the Ray cluster."""
    gpus_per_node: Annotated[int, Field(ge=1)] = 8
    """GPUs on each machine."""
    prompt_tokens: Annotated[int, Field(ge=1)] = 1024
    """Most tokens of a prompt; longer ones are refused before anything is trained (see `problems.long_prompts`)."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs over which one copy of the sampling model is spread."""
    extra: tuple[str, ...] = ()
    """verl settings as they are, applied last: `actor_rollout_ref.rollout.gpu_memory_utilization=0.6`."""


class ServedSettings(Settings):
    """What a server answers for, where the server engine asks one; its address is no setting: SIRI_SERVER_URL."""

    model: str = ""
    """The name by which the server knows the model, as `siri evaluate --server URL --model NAME` gives it."""
    alias: str = ""
    """Tells apart what two servers serve under one name: `--as`."""


class EngineSettings(Settings):
    """What runs the steps, and what of it decides the bits that come out."""

    name: EngineName = "verl"
    """`local` (torch, one process), `verl` (a cluster), `server` (a model behind an OpenAI-compatible address, which is
    measured and not trained), or `scripted` (a fake for tests and dry runs)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it computes; verl on a CPU is for tests of the engine."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the arithmetic; weights and optimizer are float32 whatever it says."""
    kernels: Literal["torch", "compiled"] = "torch"
    """What computes the local engine's samples and gradients: torch's operators, or `compiled`, numba's code for
    small Llama-shaped models in float32 on one thread of a CPU."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of the local engine; never taken from the machine, since 1 and 2 threads give other bits."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 4096
    """Most padded tokens (rows × longest row) in one forward and backward pass; with verl, most tokens on one GPU."""
    sample_rows: Annotated[int, Field(ge=1)] = 128
    """Most responses that the local engine samples side by side."""
    verl: VerlSettings = VerlSettings()
    """What the verl engine alone asks for."""
    server: ServedSettings = ServedSettings()
    """What the server engine alone asks for."""


class ServerSettings(Settings):
    """How a server is asked; decides no sample, apart from the name of the limit."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Requests at one time."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """How often a request is made again that was refused for now (429, 5xx), timed out or lost its connection; the wait
    doubles from half a second to eight, or is what the server's Retry-After says, up to a minute."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that one answer may take."""
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the most tokens of a chat's answer; hosted reasoning models want the second."""


class EvaluationSettings(Settings):
    """How snapshots are measured; never part of a snapshot's key."""

    benchmarks: tuple[str, ...] = ("dev",)
    """Measured at every snapshot: `dev`, `test` (the problems' own splits), a name of `siri benchmarks` (aime24,
    aime25, amc, amc23, gpqa, gsm8k, math500, minerva, olympiadbench), `reasoning-gym:TASK`, files or data sets."""
    final: Annotated[tuple[str, ...], Field(min_length=1)] = ("test",)
    """Measured once training is done, named as above; the tables of the report show these, so there is at least one."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """Responses per problem; left out, those of a named benchmark (`siri benchmarks`), else 32."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Sampling temperature, 0 is greedy; left out, that of a named benchmark, else 0.6."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each token is drawn from the likeliest ones that hold this share of the probability; left out, that of a named
    benchmark, else 1: from all. The compiled kernels leave what is below 1 to torch."""
    suffix: str | None = None
    """Text put behind every question; left out, that of a named benchmark, else `problems.suffix`."""
    grader: GraderName | None = None
    """How answers are graded; left out, as a named benchmark says, else as `problems.grader`."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """Most response tokens; left out, the schedule's highest budget."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the samples and of the bootstrap."""
    sampler: Literal["torch", "vllm"] = "torch"
    """What writes the responses: `torch`, the engine's own sampler, or `vllm`, in a process of its own."""
    server: ServerSettings = ServerSettings()
    """How a server is asked, where the model is behind one."""


GuardAction = Literal["off", "warn", "pause", "stop"]


class GuardSettings(Settings):
    """What a run is watched for, and what comes of it: a warning, a pause where the stage ends, a stop at once."""

    no_reward: GuardAction = "warn"
    """All rewards are 0 and nearly all responses are cut, for `steps` steps in a row: nothing is learnt."""
    length: GuardAction = "warn"
    """The mean length grows by more than length_factor beyond what the budget grew: responses explode."""
    entropy: GuardAction = "warn"
    """The entropy falls below entropy_share of what it was in the run's first steps: the policy collapses."""
    timeouts: GuardAction = "warn"
    """The grader runs out of time on more than timeout_share of a step's responses."""
    nonfinite: GuardAction = "stop"
    """A metric is not a number, or infinite: what follows is lost."""
    mismatch: GuardAction = "warn"
    """The log-probabilities of sampler and trainer drift apart, by the slope of their mean difference."""
    versions: GuardAction = "warn"
    """The engine or a library is another one than at the run's first stage."""
    disk: GuardAction = "warn"
    """Less than disk_free gigabytes are left where the work folder lies."""
    steps: Annotated[int, Field(ge=1)] = 5
    """Steps that no_reward has to last, and over which length and entropy are averaged."""
    truncated: Annotated[float, Field(ge=0, le=1)] = 0.9
    """For no_reward: the share of responses that must be cut."""
    length_factor: Annotated[float, Field(gt=1)] = 2.0
    """For length: growth since the run's shortest `steps` steps, beyond the budget's own."""
    entropy_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """For entropy: the share of the first steps' entropy."""
    timeout_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """For timeouts: the share of a step's responses."""
    mismatch_steps: Annotated[int, Field(ge=3)] = 20
    """For mismatch: steps over which the slope is taken."""
    mismatch_rise: Annotated[float, Field(gt=0)] = 0.005
    """For mismatch: nats by which the slope rises over those steps."""
    disk_free: Annotated[float, Field(ge=0)] = 2.0
    """For disk: gigabytes (10⁹ bytes)."""


class SnapshotSettings(Settings):
    """What is kept of the snapshots that the schedule names, and beside them."""

    state: Literal["keep", "newest"] = "keep"
    """What only going on needs, weights in float32 and the optimizer's moments, several times the model: in every
    snapshot (`keep`), so that other runs may branch off there, or in the `newest` of a run alone."""
    observed_extrema: Literal["off", "keep"] = "off"
    """Keep a snapshot where the observed length turns after the schedule has, to within checkpoint_every steps."""
    observed_window: Annotated[int, Field(ge=3)] = 11
    """Steps over which the observed length is averaged; a turn is believed when it is that many steps old."""


class ForkSettings(Settings):
    """A run that starts from another run's weights alone: fresh optimizer, no per-problem state, at their step."""

    key: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """Key of the snapshot to start from; `siri train RECIPE --from RUN:c1-low --carry weights` sets it."""
    step: Annotated[int, Field(ge=0)] = 0
    """The step that the snapshot stands at; the run goes on behind it."""


def _given(group: Any) -> Any:
    """A group as the settings that somebody has given, where it is a group."""
    return {name: getattr(group, name) for name in group.model_fields_set} if isinstance(group, Settings) else group


class RunConfig(Settings):
    """A run: recipe, overrides and seed. Defaults are the paper's (arXiv 2509.25176)."""

    recipe: Annotated[str, Field(pattern=LABEL)] = "custom"
    """Name of the recipe that this came from; a label."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of RL: the order of problems, the samples, the minibatches."""
    schedule: LengthSchedule = LengthSchedule()
    """The budget of every step."""
    method: MethodSettings = MethodSettings()
    """The RL method."""
    rollout: RolloutSettings = RolloutSettings()
    """How a step samples."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """The optimizer of the RL steps."""
    problems: ProblemSettings = ProblemSettings()
    """What is trained on."""
    model: ModelSettings = ModelSettings()
    """The policy before RL."""
    engine: EngineSettings = EngineSettings()
    """What runs the steps."""
    fork: ForkSettings = ForkSettings()
    """Another run's snapshot to start from, weights alone; empty for a run from its own base."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How snapshots are measured."""
    guards: GuardSettings = GuardSettings()
    """What the run is watched for."""
    snapshots: SnapshotSettings = SnapshotSettings()
    """What is kept of the schedule's own snapshots, and beside them."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    """Steps between rolling checkpoints: what a crash can cost."""

    @model_validator(mode="before")
    @classmethod
    def _choose_old_logprobs(cls, values: Any) -> Any:
        """What rollout.old_logprobs is where nobody says it follows from the engine (see there)."""
        if not isinstance(values, dict):
            return values
        engine, rollout = _given(values.get("engine", {})), _given(values.get("rollout", {}))
        if not isinstance(engine, dict) or not isinstance(rollout, dict) or "old_logprobs" in rollout:
            return values
        if engine.get("name", "verl") != "verl" and engine.get("dtype") != "bfloat16":
            return values
        return {**values, "rollout": {**rollout, "old_logprobs": "trainer"}}

    @property
    def trains(self) -> bool:
        """Whether there is anything to train; else it is a model that is measured as it is."""
        return self.schedule.total_steps > 0

    @model_validator(mode="after")
    def _check_problems(self) -> Self:
        if self.trains == (self.problems.source == "none"):
            raise ValueError(
                f"schedule.cycles={self.schedule.cycles}, problems.source={self.problems.source}: a model that is only "
                "measured has cycles=0 and source=none, a run that trains has neither"
            )
        return self

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if not self.trains:
            return self
        conflict = METHODS[self.method.name].conflict(self.schedule, self.rollout.group_size, self.method.settings)
        if conflict:
            raise ValueError(f"method {self.method.name} cannot run so: {conflict}")
        return self

    @property
    def forecast_tokens(self) -> int:
        """Upper bound of the response tokens that the whole run samples."""
        return sum(self.schedule.budgets) * self.rollout.batch_size * self.rollout.group_size * self.method.draws
