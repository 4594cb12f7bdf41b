"""The verl engine: a recipe on verl's own trainer (Ray, FSDP2, vLLM), on one node or many."""
