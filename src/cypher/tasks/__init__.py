"""One objective a file: what a model is trained for, and how its answers are read."""
