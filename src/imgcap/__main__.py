"""Run the `imgcap` command with `python -m imgcap`."""

from imgcap.cli import main

if __name__ == "__main__":
    main()
