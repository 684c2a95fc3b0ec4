"""The command `slm2c`, and `python -m slm2c`. Ctrl-C while modules load ends like Ctrl-C later."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The entry point."""
    try:
        from slm2c.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
