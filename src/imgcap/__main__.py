"""`python -m imgcap` is the `imgcap` command."""

from imgcap.cli import main

if __name__ == "__main__":
    main()
