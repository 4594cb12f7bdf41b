"""A model behind an OpenAI-compatible address, as an engine that is measured and not trained."""
