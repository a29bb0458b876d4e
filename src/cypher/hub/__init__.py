"""A model's name → files, tokenizer and weights. Nothing here loads torch; ``cypher.hub.weights`` does."""

from cypher.hub.cache import cache_folder, is_offline
from cypher.hub.catalogue import ModelEntry, models
from cypher.hub.fetch import resolve

__all__ = ["ModelEntry", "cache_folder", "is_offline", "models", "resolve"]
