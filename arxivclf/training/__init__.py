"""Training: from a dump to a model folder."""
