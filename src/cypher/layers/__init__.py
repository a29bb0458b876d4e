"""The bricks of every architecture."""
