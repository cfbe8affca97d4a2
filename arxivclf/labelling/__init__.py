"""Labelling: from a dump and a model to labels."""
