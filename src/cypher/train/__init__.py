"""The only training loop, and the protocol by which it knows tasks."""
