"""The `imgcap` command; also run by `python -m imgcap`."""

import os
import sys

_INTERRUPTED = 130
"""`ExitCode.INTERRUPTED`, which may not be imported yet."""


def main() -> None:
    """Run the command line and exit.

    An interrupted command, and a process of torchrun, exits at once, without Python's clean-up: in it, one more Ctrl-C
    or a thread of Gloo would abort the process.
    """
    try:
        from imgcap import cli

        cli.main()
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    except SystemExit as end:
        # By torchrun. Asking torch would import it, even for `--help`.
        is_launched = "TORCHELASTIC_RUN_ID" in os.environ
        if end.code == _INTERRUPTED or is_launched:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


if __name__ == "__main__":
    main()
