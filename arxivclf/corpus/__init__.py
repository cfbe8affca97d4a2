"""The papers: reading dumps, their ids and texts, tasks, splits. Knows nothing of models."""
