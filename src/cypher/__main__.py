"""``python -m cypher`` is ``cypher``."""

from cypher.cli import main

main()
