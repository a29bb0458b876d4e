"""Architectures, one a file, and the loading of published weights."""
