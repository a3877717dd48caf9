"""The command line, ``thinned``. Commands import what they need when they run."""

from __future__ import annotations

import sys

from .._optional import missing


def main() -> None:
    """The entry point. Bad input ends with an error message of one sentence and exit status 2."""
    try:
        from .app import app
    except ImportError as error:
        print(f"error: {missing(error, 'study')}", file=sys.stderr)
        sys.exit(2)
    app()
