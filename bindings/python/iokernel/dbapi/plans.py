"""When the plans of prepared statements are out of date.

The server refuses a prepared statement whose columns are not what they were when it was prepared
("cached plan must not change result type"), and within a transaction that ends the transaction. So
a connection forgets its statements after one that may have such an effect, run by whatever
connection of the process. What other processes do is not seen.
"""

from __future__ import annotations

# What the tags of such statements begin with.
_ALTERS = ("ALTER ", "DROP ", "CREATE VIEW")
_CREATES = "CREATE "

_change: object = None
"""Another object after each change."""


def _changed() -> None:
    global _change
    _change = object()


class Plans:
    """The plans of one connection."""

    def __init__(self) -> None:
        self._as_of: object = None  # the change before its statements were prepared
        self._alters = False  # the transaction that is open
        self._creates = False

    def renew(self) -> bool:
        """Whether its statements have to be forgotten now."""
        stale = self._as_of is not _change
        self._as_of = _change
        return stale

    def note(self, tag: str) -> None:
        """See what a statement was, by its tag."""
        if tag.startswith(_ALTERS):
            self._alters = True
            _changed()
        elif tag.startswith(_CREATES):
            self._creates = True

    def undone(self) -> None:
        """See the transaction, or a part of it, rolled back."""
        if self._alters or self._creates:
            _changed()

    def ended(self, undone: bool) -> None:
        """See the transaction end: what it changed is so for others, too, or not any more."""
        if undone or self._alters:
            self.undone()
        self._alters = self._creates = False
