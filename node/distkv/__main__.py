"""`python -m distkv` is `distkv`."""

from distkv.cli.main import main

if __name__ == "__main__":
    main()
