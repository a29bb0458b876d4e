"""Small trained parts of a frozen model, one method a file."""
