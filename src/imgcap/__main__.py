"""The `imgcap` command; also run by `python -m imgcap`."""

import os

_INTERRUPTED = 130
"""`ExitCode.INTERRUPTED`, which may not be imported yet."""


def main() -> None:
    """Run the command line and exit.

    An interrupted command exits at once, without Python's clean-up: one more Ctrl-C would abort that with a traceback.
    """
    try:
        from imgcap import cli

        cli.main()
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            os._exit(_INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
