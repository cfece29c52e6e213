"""Text to ids, a model over ids, what it says."""
