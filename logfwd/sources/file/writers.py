"""Whether anyone has a file open for writing: asked of the kernel by a lease, which is given back at once.

A read lease (fcntl(2), F_SETLEASE) is refused while a writer has the file open, under whatever name. The kernel grants
it only to the file's owner, or with CAP_LEASE; and it may send SIGIO, whose default action ends the process, so nothing
is asked unless SIGIO is ignored (`ignore_lease_breaks`).
"""

from __future__ import annotations

import errno
import fcntl
import signal


def ignore_lease_breaks() -> None:
    """Ignore SIGIO, so that leases can be used. Only for the main thread of a program."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def has_writer(fd: int) -> bool | None:
    """Whether a file that is open for reading has a writer; None where that cannot be known."""
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        return None
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
