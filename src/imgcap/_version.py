"""Version and name of the distribution, importable from every module."""

__version__ = "0.1.0"

DISTRIBUTION = "imgcap-cli"
"""The name for pip. On PyPI, `imgcap` is another project."""
