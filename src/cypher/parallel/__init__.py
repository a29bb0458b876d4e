"""One model over many processes, by one plan; a technique a file."""
