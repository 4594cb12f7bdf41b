"""RunConfig -> the settings of verl's trainer, as Hydra overrides; what is left out stays verl's default."""

from pathlib import Path

from siri.config import MethodSettings, RunConfig
from siri.engines.verl.order import Order
from siri.errors import InputError
from siri.methods import METHODS

AGENTS = Path(__file__).with_name("agents.yaml")
"""Where verl finds the agent loop, at the same place on every node."""
PRECISION = {"float32": "fp32", "bfloat16": "bf16"}


def overrides(order: Order) -> list[str]:
    """The whole launch of a stage, `key=value` each. Raises InputError for a recipe that this engine cannot run."""
    config = order.config
    check_recipe(config)
    return [
        *_algorithm(config),
        *_data(config),
        *_model(order),
        *_actor(config),
        *_reference(config),
        *_rollout(config),
        *_trainer(order),
        *config.engine.verl.extra,
    ]


def preview_overrides(config: RunConfig) -> list[str]:
    """The launch of a run's first stage; its folders, which only a run has, by what they are called."""
    stage = config.schedule.stages[0]
    order = Order(config, Path("SCRATCH"), Path(config.model.base), 0, stage.last, frozenset([stage.last]), False)
    return overrides(order)


def check_recipe(config: RunConfig) -> None:
    """Raise InputError for what verl would refuse late, or do in another way without a word."""
    settings, rollout, method = config.engine.verl, config.rollout, config.method
    trusting = [extra for extra in settings.extra if "trust_remote_code" in extra.casefold()]
    if trusting:
        raise InputError(f"engine.verl.extra={trusting[0]}: code from a model folder is never run; leave it out")
    if config.engine.kernels != "torch":
        raise InputError(
            f"engine.kernels={config.engine.kernels}: is for engine.name=local alone; verl needs engine.kernels=torch"
        )
    if config.problems.stop:
        raise InputError("problems.stop: verl's rollout ends responses at end tokens alone; leave it out")
    if method.draws > 1:
        raise InputError(f"method.draws={method.draws}: verl draws once; with 1, groups that are dropped teach nothing")
    if METHODS[method.name].reads_reference:
        raise InputError(f"method.name={method.name}: its loss reads the reference, which verl's losses do not see")
    gpus = settings.nodes * settings.gpus_per_node
    if rollout.batch_size % method.minibatches:
        raise InputError(f"method.minibatches={method.minibatches}: must divide rollout.batch_size for verl")
    shared = rollout.batch_size * (1 if METHODS[method.name].scope == "groups" else rollout.group_size)
    if shared // method.minibatches % gpus:
        raise InputError(
            f"engine.verl.gpus_per_node={settings.gpus_per_node}: {gpus} GPUs must share a minibatch evenly"
        )
    if rollout.old_logprobs != "trainer":
        raise InputError(f"rollout.old_logprobs={rollout.old_logprobs}: verl recomputes them; use trainer")
    if config.optimizer.warmup_steps:
        raise InputError("optimizer.warmup_steps: must be 0 for verl, whose own warm-up takes other values")
    longest = settings.prompt_tokens + config.schedule.highest
    if config.engine.micro_batch_tokens < longest:
        raise InputError(
            f"engine.micro_batch_tokens={config.engine.micro_batch_tokens}: must hold a whole text for verl, "
            f"{longest} tokens of prompt and response"
        )


def _algorithm(config: RunConfig) -> list[str]:
    return [
        "algorithm.adv_estimator=siri",
        f"algorithm.norm_adv_by_std_in_grpo={config.method.advantage_scale == 'std'}",
        "algorithm.use_kl_in_reward=False",
    ]


def _data(config: RunConfig) -> list[str]:
    """Sizes only: the problems of a step come from siri.problems, by way of the trainer."""
    return [
        f"data.train_batch_size={config.rollout.batch_size}",
        f"data.max_prompt_length={config.engine.verl.prompt_tokens}",
        f"data.max_response_length={config.schedule.highest}",
        "data.trust_remote_code=False",
    ]


def _model(order: Order) -> list[str]:
    return [
        f"actor_rollout_ref.model.path={order.reference or order.model}",
        "actor_rollout_ref.model.trust_remote_code=False",
        "actor_rollout_ref.model.use_remove_padding=True",
        "actor_rollout_ref.model.enable_gradient_checkpointing=True",
    ]


def _actor(config: RunConfig) -> list[str]:
    method, optimizer, settings = config.method, config.optimizer, config.engine
    actor = "actor_rollout_ref.actor"
    return [
        f"{actor}.strategy=fsdp2",
        f"{actor}.ppo_mini_batch_size={config.rollout.batch_size // method.minibatches}",
        f"{actor}.ppo_epochs=1",
        f"{actor}.use_dynamic_bsz=True",
        f"{actor}.ppo_max_token_len_per_gpu={settings.micro_batch_tokens}",
        f"{actor}.policy_loss.loss_mode=siri",
        f"{actor}.clip_ratio_low={method.clip_low}",
        f"{actor}.clip_ratio_high={method.clip_high}",
        f"{actor}.loss_agg_mode={method.loss_aggregation}",
        *_regularisation(method),
        f"{actor}.optim.lr={optimizer.learning_rate}",
        f"{actor}.optim.lr_scheduler_type=constant",
        f"{actor}.optim.lr_warmup_steps=0",
        f"{actor}.optim.betas=[{optimizer.beta1},{optimizer.beta2}]",
        f"{actor}.optim.weight_decay={optimizer.weight_decay}",
        f"{actor}.optim.clip_grad={optimizer.max_grad_norm}",
        f"+{actor}.optim.override_optimizer_config.eps={optimizer.epsilon}",
        f"{actor}.fsdp_config.model_dtype=fp32",
        f"+{actor}.fsdp_config.mixed_precision.param_dtype={PRECISION[settings.dtype]}",
        f"{actor}.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        f"{actor}.checkpoint.load_contents=[model,optimizer,extra]",
    ]


def _regularisation(method: MethodSettings) -> list[str]:
    """verl's own terms, by the same formulas as siri.methods.regularisation."""
    actor = "actor_rollout_ref.actor"
    if not method.kl_weight:
        return [f"{actor}.use_kl_loss=False", f"{actor}.entropy_coeff={method.entropy_weight:g}"]
    return [
        f"{actor}.use_kl_loss=True",
        f"{actor}.kl_loss_coef={method.kl_weight}",
        f"{actor}.kl_loss_type=low_var_kl",
        f"{actor}.entropy_coeff={method.entropy_weight:g}",
    ]


def _reference(config: RunConfig) -> list[str]:
    """How the base scores a step's responses, where the loss refers to it."""
    if not config.method.kl_weight:
        return []
    reference = "actor_rollout_ref.ref"
    return [
        f"{reference}.log_prob_use_dynamic_bsz=True",
        f"{reference}.log_prob_max_token_len_per_gpu={config.engine.micro_batch_tokens}",
    ]


def _rollout(config: RunConfig) -> list[str]:
    settings, rollout = config.engine, "actor_rollout_ref.rollout"
    longest = settings.verl.prompt_tokens + config.schedule.highest
    return [
        f"{rollout}.name=vllm",
        f"{rollout}.n={config.rollout.group_size}",
        f"{rollout}.temperature={config.rollout.temperature}",
        f"{rollout}.top_p=1.0",
        f"{rollout}.top_k=-1",
        f"{rollout}.dtype={settings.dtype}",
        f"{rollout}.tensor_model_parallel_size={settings.verl.tensor_parallel}",
        f"{rollout}.max_model_len={longest}",
        f"{rollout}.max_num_batched_tokens={max(longest, 8192)}",
        f"{rollout}.calculate_log_probs=True",
        f"{rollout}.log_prob_use_dynamic_bsz=True",
        f"{rollout}.log_prob_max_token_len_per_gpu={settings.micro_batch_tokens}",
        f"{rollout}.agent.default_agent_loop=siri",
        f"{rollout}.agent.agent_loop_config_path={AGENTS}",
    ]


def _trainer(order: Order) -> list[str]:
    settings = order.config.engine
    resume = (
        ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={order.state(order.start_step)}"]
        if order.resume
        else ["trainer.resume_mode=disable"]
    )
    return [
        "reward.reward_manager.source=importlib",
        "reward.reward_manager.module.path=pkg://siri.engines.verl.reward",
        "reward.reward_manager.name=GradingRewardManager",
        "trainer.use_v1=True",
        "trainer.v1.trainer_mode=sync",
        f"trainer.nnodes={settings.verl.nodes}",
        f"trainer.n_gpus_per_node={settings.verl.gpus_per_node}",
        f"trainer.device={settings.device}",
        f"trainer.total_training_steps={order.last}",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",  # the trainer saves where the stage asks for it
        "trainer.logger=[console]",
        f"trainer.default_local_dir={order.folder}",
        *resume,
    ]
