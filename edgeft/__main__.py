"""`python -m edgeft`."""

from edgeft.cli.main import main

if __name__ == "__main__":
    main()
