"""``python -m thinned``."""

from .cli import main

main()
