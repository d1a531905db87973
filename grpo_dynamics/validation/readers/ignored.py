"""Options of trainers that have no part in a prediction: they may stand in a config and are not looked at.

They are where data comes from, how it runs, how it logs, how fast it learns. An option that is neither here nor in
the preset of :mod:`grpo_dynamics.theory.trainers` is refused, as it may be a misspelt one.

Source: the fields of TRL 1.16's GRPOConfig, GRPOScriptArguments, ModelConfig and DatasetMixtureConfig; of
open-instruct's configs (August 2026); the keys of verl's trainer/config/ppo_trainer.yaml, 0.10; nano_r1_script.py.
"""

from __future__ import annotations

from collections.abc import Mapping

TRL = """
    _n_gpu accelerator_config activation_checkpointing activation_checkpointing_kwargs adam_beta1 adam_beta2
    adam_epsilon attn_implementation auto_find_batch_size average_tokens_across_devices batch_eval_metrics bf16
    bf16_full_eval bnb_4bit_quant_storage bnb_4bit_quant_type cache_implementation cast_lm_head_to_fp32
    chat_template_kwargs config data_seed dataloader_drop_last dataloader_in_order
    dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers
    dataloader_pin_memory dataloader_prefetch_factor dataset_config dataset_name dataset_streaming
    dataset_test_split dataset_train_split datasets ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb
    ddp_find_unused_parameters ddp_static_graph ddp_timeout debug deepspeed disable_tqdm do_eval do_predict
    do_train ds3_gather_for_generation dtype enable_jit_checkpoint entropy_coef_delta entropy_coef_max
    entropy_coef_min entropy_target eval_accumulation_steps eval_delay eval_do_concat_batches eval_on_start
    eval_steps eval_strategy eval_use_gather_object fp16 fp16_full_eval fsdp fsdp_config full_determinism
    generation_batch_size generation_kwargs gradient_checkpointing gradient_checkpointing_kwargs
    greater_is_better hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy hub_token
    ignore_bias_buffers ignore_data_skip include_for_metrics include_num_input_tokens_seen label_names
    label_smoothing_factor length_column_name liger_kernel_config load_best_model_at_end load_in_4bit
    load_in_8bit local_rank log_completions log_completions_hub_repo log_level log_level_replica log_multimodal
    log_on_each_node log_unique_prompts logging_first_step logging_nan_inf_filter logging_steps logging_strategy
    lora_alpha lora_dropout lora_modules_to_save lora_r lora_target_modules lora_target_parameters
    lora_task_type lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps max_tool_calling_iterations
    metric_for_best_model min_p model_init_kwargs model_name_or_path model_revision neftune_noise_alpha
    num_completions_to_print num_generations_eval num_train_epochs optim optim_args optim_target_modules
    output_dir pad_to_multiple_of parallelism_config per_device_eval_batch_size prediction_loss_only project
    push_to_hub remove_unused_columns repetition_penalty report_to restore_callback_states_from_checkpoint
    resume_from_checkpoint reward_funcs reward_model_name_or_path reward_weights router_aux_loss_coef run_name
    sapo_temperature_neg sapo_temperature_pos save_on_each_node save_only_model save_steps save_strategy
    save_total_limit seed shuffle_dataset skip_memory_metrics streaming test_split_size tf32 top_k top_p
    torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps trackio_bucket_id
    trackio_space_id trackio_static_space_id train_sampling_strategy transformers_continuous_batching_config
    trust_remote_code use_bnb_nested_quant use_cache use_cpu use_dora use_liger_kernel use_peft use_rslora
    use_transformers_continuous_batching use_transformers_paged vespo_k_neg vespo_k_pos vespo_lambda_neg
    vespo_lambda_pos vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_group_port
    vllm_importance_sampling_cap vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min
    vllm_importance_sampling_mode vllm_max_model_length vllm_mode vllm_model_impl vllm_server_base_url
    vllm_server_host vllm_server_port vllm_server_timeout vllm_structured_outputs_regex
    vllm_tensor_parallel_size warmup_steps weight_decay
"""

OLDER_TRL = """
    dispatch_batches evaluation_strategy fp16_backend group_by_length half_precision_backend jit_mode_eval logging_dir
    max_prompt_length mp_parameters no_cuda overwrite_output_dir past_index ray_scope save_safetensors split_batches
    torchdynamo tpu_metrics_debug tpu_num_cores use_ipex use_liger_loss use_mps_device vllm_device vllm_dtype
    vllm_guided_decoding_regex vllm_max_model_len wandb_log_unique_prompts warmup_ratio
"""
"""Of earlier versions of TRL and of transformers' TrainingArguments."""

OPEN_INSTRUCT = """
    _parsed_tools activation_checkpointing_mode activation_checkpointing_modules activation_memory_budget
    add_bos additive_format_reward alpha apply_evolving_rubric_reward apply_r1_style_format_reward
    apply_verifiable_reward attn_implementation backend_timeout beaker_dataset_id_urls beaker_dataset_ids
    beaker_experiment_url beaker_node_hostname beaker_workload_id bnb_4bit_quant_type cache_dataset_only
    cache_evolving_rubric_data_dir chat_template_name checkpoint_state_dir checkpoint_state_freq
    checkpointing_steps code_api_url code_apply_perf_penalty code_max_execution_time
    code_pass_rate_reward_threshold compile_model config_name cp_degree cp_strategy data_loader_seed
    dataset_cache_mode dataset_config_eval_hash dataset_config_hash dataset_local_cache_dir
    dataset_mixer_eval_list dataset_mixer_eval_list_splits dataset_mixer_list dataset_mixer_list_splits
    dataset_skip_cache dataset_transform_fn deepspeed_checkpoint_load_universal deepspeed_offload_optimizer
    deepspeed_offload_param deepspeed_stage deepspeed_zpg dtype enable_queue_dashboard ephemeral_save_interval
    eval_on_step_0 eval_pass_at_k eval_priority eval_response_length eval_top_p eval_workspace exp_name
    fsdp_num_replicas fsdp_shard_degree fused_optimizer gather_whole_model get_tokenizer_fn
    gradient_accumulation_steps gradient_checkpointing ground_truths_key gs_bucket_path gs_checkpoint_state_dir
    hf_entity hf_repo_id hf_repo_revision hf_repo_url keep_last_n_checkpoints llm_judge_max_context_length
    llm_judge_max_tokens llm_judge_model llm_judge_temperature llm_judge_timeout load_in_4bit load_in_8bit
    local_eval_every logging_steps lora_alpha lora_dropout lora_modules_to_save lora_r lora_target_modules
    lora_task_type loss_implementation low_cpu_mem_usage lr_scheduler_type mask_tool_use max_active_rubrics
    max_grad_norm max_length_verifier_max_length max_possible_score max_prompt_token_length max_seq_length
    max_steps max_train_steps model_dtype model_name_or_path model_revision non_stop_penalty
    non_stop_penalty_value num_learners_per_node num_nodes num_training_steps num_unique_prompts_rollout
    oe_eval_beaker_image oe_eval_gpu_multiplier oe_eval_max_length oe_eval_tasks only_reward_good_outputs
    output_dir pack_length pass_tools_to_chat_template per_device_train_batch_size per_turn_max_tokens pool_size
    push_to_hub queue_dashboard_port r1_style_format_reward record_entropy ref_policy_update_freq remap_verifier
    report_to response_length resume_from_checkpoint reward_aggregator rho_clamp_lower_bound
    rho_clamp_upper_bound rho_mask_lower_bound rho_mask_sequence_level rho_mask_tv_divergence
    rho_mask_upper_bound rollouts_save_path rope_scaling_beta_fast rope_scaling_beta_slow rope_scaling_factor
    rope_scaling_old_context_len run_name save_freq save_traces seed send_slack_alerts sequence_parallel_size
    set_weight_decay_on_bias_and_norm sft_messages_key single_gpu_mode stop_strings system_prompt_override_file
    tokenizer_files_hash tokenizer_name tokenizer_name_or_path tokenizer_revision tool_call_names tool_configs
    tool_parser_type tools total_episodes trust_remote_code try_auto_save_to_beaker
    try_launch_beaker_eval_jobs_on_weka use_bnb_nested_quant use_cache use_fast use_peft use_slow_tokenizer
    use_vllm_logprobs verbose vllm_attention_backend vllm_enable_prefix_caching vllm_enforce_eager
    vllm_gpu_memory_utilization vllm_num_engines vllm_sync_backend vllm_tensor_parallel_size vllm_top_p
    wandb_entity wandb_group_name wandb_project warmup_ratio weight_decay with_tracking world_size
"""

NANO_AHA_MOMENT = """
    debug episodes_per_iteration model_name nproc num_iterations run_id vineppo_k
"""

IGNORED: Mapping[str, frozenset[str]] = {
    "trl": frozenset((TRL + OLDER_TRL).split()),
    "open-instruct": frozenset(OPEN_INSTRUCT.split()),
    "nano-aha-moment": frozenset(NANO_AHA_MOMENT.split()),
}
"""Names, for each trainer."""

VERL = """
    data trainer critic custom_reward_function reward_model sandbox_fusion reward distillation transfer_queue
    global_profiler skip ray_kwargs hydra model_engine actor_rollout_ref.hybrid_engine actor_rollout_ref.nccl_timeout
    actor_rollout_ref.model actor_rollout_ref.ref actor_rollout_ref.rollout actor_rollout_ref.actor._target_
    actor_rollout_ref.actor.calculate_entropy actor_rollout_ref.actor.calculate_sum_pi_squared
    actor_rollout_ref.actor.checkpoint actor_rollout_ref.actor.data_loader_seed
    actor_rollout_ref.actor.entropy_checkpointing actor_rollout_ref.actor.entropy_from_logits_chunk_size
    actor_rollout_ref.actor.entropy_from_logits_with_chunking actor_rollout_ref.actor.freeze_vision_tower
    actor_rollout_ref.actor.fsdp_config actor_rollout_ref.actor.grad_clip
    actor_rollout_ref.actor.loss_scale_factor actor_rollout_ref.actor.optim
    actor_rollout_ref.actor.pad_to_length actor_rollout_ref.actor.policy_loss
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu actor_rollout_ref.actor.ppo_micro_batch_size
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu actor_rollout_ref.actor.profiler
    actor_rollout_ref.actor.qat actor_rollout_ref.actor.rollout_n actor_rollout_ref.actor.router_replay
    actor_rollout_ref.actor.shuffle actor_rollout_ref.actor.strategy actor_rollout_ref.actor.tau_neg
    actor_rollout_ref.actor.tau_pos actor_rollout_ref.actor.ulysses_sequence_parallel_size
    actor_rollout_ref.actor.use_dynamic_bsz actor_rollout_ref.actor.use_fused_kernels
    actor_rollout_ref.actor.use_prefix_grouper actor_rollout_ref.actor.use_remove_padding
    actor_rollout_ref.actor.use_torch_compile
    algorithm._target_ algorithm.filter_groups algorithm.kl_ctrl._target_ algorithm.pf_ppo algorithm.rollout_correction
    algorithm.use_pf_ppo
"""

IGNORED_BELOW: Mapping[str, tuple[str, ...]] = {"verl": tuple(VERL.split())}
"""Names of which all that is below them, after a dot, is not looked at either."""

ALIASES: Mapping[str, Mapping[str, str]] = {
    "nano-aha-moment": {"kl_coefficient": "kl_coeff", "rollouts_per_episode": "GENERATIONS_PER_SAMPLE"},
}
"""What a trainer calls an option where it keeps it, and what the preset calls it."""
