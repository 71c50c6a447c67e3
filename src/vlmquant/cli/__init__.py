"""The command line: each command parses, makes one library call and prints."""

import sys

from vlmquant.errors import VlmQuantError


def main() -> None:
    """Run the command line; a user's error is one line on standard error and an exit code, never a traceback."""
    from vlmquant.cli.app import app

    try:
        app()
    except VlmQuantError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
