"""Which symbolic links are followed, by `follow_links`: whoever may write to a directory of logs could have a forwarder
with more rights read any file of the host through a link.

With "same_owner", every link on the way to a file has to be root's, or to have the owner of what it leads to. The
directories are judged, too, however they were named: one may be replaced by a link at any time.
"""

from __future__ import annotations

import os
import stat
from typing import Literal

FollowLinks = Literal["same_owner", "all", "none"]


class Links:
    """Judges the links on the way to files; directories once for each scan."""

    def __init__(self, rule: FollowLinks) -> None:
        self._rule = rule
        self._directories: dict[tuple[str, str], str] = {}

    def forget(self) -> None:
        """Judge every directory again: a new scan begins."""
        self._directories.clear()

    def refusal(self, path: str, root: str) -> str:
        """Why this path is not followed; "" if it is. Raises OSError if it leads nowhere.

        `root`: the part of the path that the configuration names in full; with "none", links in it are followed.
        """
        if self._rule == "all":
            return ""
        return self.refusal_of_directory(os.path.dirname(path) or ".", root) or self._judge(path)

    def refusal_of_directory(self, path: str, root: str) -> str:
        """The same for a directory, which may not be there any more."""
        if self._rule == "all" or (self._rule == "none" and not _is_below(path, root)):
            return ""
        key = path, root if self._rule == "none" else ""
        if key not in self._directories:
            parent = os.path.dirname(path)
            above = self.refusal_of_directory(parent, root) if parent not in ("", path) else ""
            try:
                self._directories[key] = above or self._judge(path)
            except OSError:  # said by whoever lists it
                self._directories[key] = ""
        return self._directories[key]

    def _judge(self, path: str) -> str:
        link = os.lstat(path)
        if not stat.S_ISLNK(link.st_mode):
            return ""
        if self._rule == "none":
            return f'{path} is a symbolic link, and source.follow_links = "none"'
        owner = os.stat(path).st_uid
        if link.st_uid in (0, owner):
            return ""
        return (
            f"{path} is a symbolic link of user {link.st_uid} to what belongs to user {owner}; "
            'source.follow_links = "all" follows it'
        )


def _is_below(path: str, root: str) -> bool:
    return path != root and (root in ("", ".") or path.startswith(root.rstrip("/") + "/"))
