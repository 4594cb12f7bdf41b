"""What a recipe becomes for verl: golden text, the paper's two launches, and what is refused before anything starts."""

from importlib.util import find_spec

import pytest

from siri.config import RunConfig, load
from siri.engines import open_engine, require_engine
from siri.engines.verl.launch import AGENTS, preview_overrides
from siri.errors import InputError
from siri.problems import load_splits
from tests.cli.test_cli import run_cli
from tests.conftest import tiny

PAPER = """\
algorithm.adv_estimator=siri
algorithm.norm_adv_by_std_in_grpo=True
algorithm.use_kl_in_reward=False
data.train_batch_size=128
data.max_prompt_length=1024
data.max_response_length=16384
data.trust_remote_code=False
actor_rollout_ref.model.path=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
actor_rollout_ref.model.trust_remote_code=False
actor_rollout_ref.model.use_remove_padding=True
actor_rollout_ref.model.enable_gradient_checkpointing=True
actor_rollout_ref.actor.strategy=fsdp2
actor_rollout_ref.actor.ppo_mini_batch_size=128
actor_rollout_ref.actor.ppo_epochs=1
actor_rollout_ref.actor.use_dynamic_bsz=True
actor_rollout_ref.actor.ppo_max_token_len_per_gpu=36864
actor_rollout_ref.actor.policy_loss.loss_mode=siri
actor_rollout_ref.actor.clip_ratio_low=0.2
actor_rollout_ref.actor.clip_ratio_high=0.28
actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean
actor_rollout_ref.actor.use_kl_loss=False
actor_rollout_ref.actor.entropy_coeff=0
actor_rollout_ref.actor.optim.lr=1e-06
actor_rollout_ref.actor.optim.lr_scheduler_type=constant
actor_rollout_ref.actor.optim.lr_warmup_steps=0
actor_rollout_ref.actor.optim.betas=[0.9,0.999]
actor_rollout_ref.actor.optim.weight_decay=0.0
actor_rollout_ref.actor.optim.clip_grad=1.0
+actor_rollout_ref.actor.optim.override_optimizer_config.eps=1e-08
actor_rollout_ref.actor.fsdp_config.model_dtype=fp32
+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16
actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]
actor_rollout_ref.actor.checkpoint.load_contents=[model,optimizer,extra]
actor_rollout_ref.rollout.name=vllm
actor_rollout_ref.rollout.n=8
actor_rollout_ref.rollout.temperature=1.0
actor_rollout_ref.rollout.top_p=1.0
actor_rollout_ref.rollout.top_k=-1
actor_rollout_ref.rollout.dtype=bfloat16
actor_rollout_ref.rollout.tensor_model_parallel_size=1
actor_rollout_ref.rollout.max_model_len=17408
actor_rollout_ref.rollout.max_num_batched_tokens=17408
actor_rollout_ref.rollout.calculate_log_probs=True
actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True
actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=36864
actor_rollout_ref.rollout.agent.default_agent_loop=siri
actor_rollout_ref.rollout.agent.agent_loop_config_path=AGENTS
reward.reward_manager.source=importlib
reward.reward_manager.module.path=pkg://siri.engines.verl.reward
reward.reward_manager.name=GradingRewardManager
trainer.use_v1=True
trainer.v1.trainer_mode=sync
trainer.nnodes=1
trainer.n_gpus_per_node=8
trainer.device=cuda
trainer.total_training_steps=320
trainer.val_before_train=False
trainer.test_freq=-1
trainer.save_freq=-1
trainer.logger=[console]
trainer.default_local_dir=SCRATCH
trainer.resume_mode=disable
"""


def test_the_paper_s_1_5b_recipe_is_the_paper_s_launch_on_8_gpus() -> None:
    assert [line.replace(str(AGENTS), "AGENTS") for line in preview_overrides(load("siri-1.5b"))] == PAPER.splitlines()


def test_the_7b_recipe_is_the_same_launch_of_the_larger_model_on_16_gpus() -> None:
    changed = set(preview_overrides(load("siri-7b"))) - set(preview_overrides(load("siri-1.5b")))
    assert changed == {
        "actor_rollout_ref.model.path=deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "trainer.nnodes=2",
    }


def test_raw_settings_come_last_and_so_have_the_last_word() -> None:
    line = "actor_rollout_ref.rollout.gpu_memory_utilization=0.6"
    assert preview_overrides(load("siri-1.5b", [f"engine.verl.extra=['{line}']"]))[-1] == line


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("method.minibatches=3", "^method.minibatches=3: must divide rollout.batch_size"),
        ("engine.verl.gpus_per_node=7", "^engine.verl.gpus_per_node=7: 7 GPUs must share a minibatch evenly$"),
        ("optimizer.warmup_steps=5", "^optimizer.warmup_steps: must be 0 for verl"),
        ("engine.micro_batch_tokens=16384", "^engine.micro_batch_tokens=16384: must hold a whole text.*17408 tokens"),
        (
            "engine.kernels=compiled",
            "^engine.kernels=compiled: is for engine.name=local alone; verl needs engine.kernels=torch$",
        ),
    ],
)
def test_what_verl_would_refuse_late_is_refused_at_once(override: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        preview_overrides(load("siri-1.5b", [override]))


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed here: `make test` runs this without it")
def test_without_verl_the_engine_is_one_line_that_says_how_to_get_it() -> None:
    config: RunConfig = tiny("engine.name=verl")
    for ask in (require_engine, lambda config: open_engine(config, load_splits(config.problems).train)):
        with pytest.raises(InputError, match=r"^engine.name=verl: verl is not installed here; .*siri-rl\[verl\]"):
            ask(config)


def test_a_dry_run_prints_the_launch_and_other_engines_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", "siri-1.5b", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == preview_overrides(load("siri-1.5b"))
    assert run_cli("train", "laptop", "--dry-run") == 2
    assert "--dry-run: shows a launch of verl; engine.name=local has none" in capsys.readouterr().err
