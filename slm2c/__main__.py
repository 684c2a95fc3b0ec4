"""`python -m slm2c`: the same as the `slm2c` command."""

from slm2c.cli import main

if __name__ == "__main__":
    main()
