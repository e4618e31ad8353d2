"""`python -m keeper` is the command `keeper`."""

from keeper.cli import main

if __name__ == "__main__":
    main()
