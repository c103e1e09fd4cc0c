"""What a file has besides its content: owner, group, permissions, extended attributes, access control lists."""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

_MACOS_ACL_AND_XATTRS = 0b101
"""COPYFILE_ACL and COPYFILE_XATTR of macOS's copyfile(3)."""


def copy_attributes(source: Path, target: Path) -> None:
    """Give `target` the attributes of `source`, as far as the system allows; times stay as they are."""
    state = source.stat()
    _copy_owner(state, target)
    _copy_extended_attributes(source, target)
    target.chmod(stat.S_IMODE(state.st_mode))  # last: changing the owner clears bits


def copy_mtime(source: Path, target: Path) -> None:
    """Give `target` the modification time of `source`, and its access time."""
    state = source.stat()
    os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))


def _copy_owner(state: os.stat_result, target: Path) -> None:
    if sys.platform != "win32":
        try:
            os.chown(target, state.st_uid, state.st_gid)
        except OSError:  # only root may give files away, but a group can be kept by its members
            with suppress(OSError):
                os.chown(target, -1, state.st_gid)


def _copy_extended_attributes(source: Path, target: Path) -> None:
    """Linux keeps access control lists among these."""
    if sys.platform == "darwin":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).copyfile(os.fsencode(source), os.fsencode(target), None, _MACOS_ACL_AND_XATTRS)
    if sys.platform != "linux":
        return
    with suppress(OSError):  # not all file systems have them
        names = os.listxattr(source)
        for name in set(os.listxattr(target)).difference(names):  # such as a list that the folder hands down
            with suppress(OSError):
                os.removexattr(target, name)
        for name in names:
            with suppress(OSError):  # some belong to the system
                os.setxattr(target, name, os.getxattr(source, name))
