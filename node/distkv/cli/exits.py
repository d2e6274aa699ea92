"""Exit codes of the `distkv` command, and the errors that lead to them."""

from __future__ import annotations

import errno

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_CONDITION = 4
EXIT_UNKNOWN = 5
EXIT_DIFFERENT = 6
EXIT_UNREACHABLE = 7
EXIT_INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
  0    done
  1    refused or failed; the message says why
  2    wrong use of the command, or a wrong configuration
  3    the key is not there
  4    the condition was not met, nothing was changed
  5    outcome unknown: the write may or may not have taken effect
  6    data are different from what they should be
  7    no server answered
  130  interrupted
"""

OF_FILES = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR),
    *(errno.EISDIR, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ELOOP),
}
"""Errors of a file that a person named, or of the disk. Others are faults of ours."""


class Failure(Exception):
    """Ends the command with a message and an exit code."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
