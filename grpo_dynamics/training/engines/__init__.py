"""Engines that draw completions: transformers, vLLM in this process, a vLLM server."""
