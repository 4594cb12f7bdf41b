"""vLLM as the sampler of evaluations, whichever engine trained the snapshot."""
