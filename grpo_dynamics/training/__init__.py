"""Real GRPO on language models: tasks, verifiers, policies, rollouts, losses, and the loop that records p.

It does not know the theory: ``grpo_dynamics.validation`` lays what is measured here over what is predicted there.
"""
