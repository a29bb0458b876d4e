"""Text from a model: how the next token is chosen, and when to stop."""
