"""The exceptions of iokernel.

Every one is an :class:`Error` and says how the call ended (``outcome``), which service and endpoint
it met, and the core's name for the cause (``code``). The classes below it sort them by what a
program does about them: repeat (:class:`NeverSent`), look before repeating
(:class:`MaybeExecuted`), or read what the server said (:class:`ReplyError`).
"""

from __future__ import annotations

__all__ = [
    "Closed",
    "DecodeError",
    "Error",
    "Forked",
    "MaybeExecuted",
    "NeverSent",
    "Overloaded",
    "Rejected",
    "ReplyError",
    "Timeout",
    "TypeRefused",
    "URLError",
    "Unavailable",
    "Unsafe",
    "WatchError",
    "WrongThread",
]


class Error(Exception):
    """The base of all.

    ``outcome`` is ``"done"``, ``"never-sent"``, ``"maybe-executed"`` or ``"rejected"``; ``service``
    the service's URL without password, ``endpoint`` the address that served the call (each ``""``
    if there is none); ``code`` the core's name for the cause, such as ``"IOK_ETIMEOUT"``; ``row``
    the number, from 0, of the row of executemany() that failed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        outcome: str = "never-sent",
        service: str = "",
        endpoint: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.outcome = outcome
        self.service = service
        self.endpoint = endpoint
        self.row: int | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args[0] if self.args else "", self.__dict__.copy()))


def _rebuild(kind: type[Error], message: str, state: dict[str, object]) -> Error:
    """Make an exception again from its pickle."""
    error = kind(message)
    error.__dict__.update(state)
    return error


class NeverSent(Error, ConnectionError):
    """The server cannot have run it: repeating is safe."""


class MaybeExecuted(Error, ConnectionError):
    """It was sent and no reply came: the server may have run it, or may still."""


class Timeout(Error, TimeoutError):
    """The deadline passed; ``outcome`` says whether it had been sent."""


class Overloaded(NeverSent):
    """Too many calls, or bytes of their arguments, wait already: the text names the bound."""


class Unavailable(NeverSent):
    """The service cannot be reached, or does not let us in."""


class Closed(NeverSent):
    """The client, lease or stream was closed."""


class WrongThread(NeverSent):
    """It belongs to another thread or event loop."""


class Forked(Error, ConnectionError):
    """It was under way at fork() and belongs to the parent process; its outcome says whether the
    parent may run it.
    """


class Unsafe(NeverSent, ValueError):
    """The command would disturb other users of its connection; the text says what to use."""


class TypeRefused(NeverSent, TypeError):
    """An argument is of a type that the protocol cannot carry."""


class URLError(Error, ValueError):
    """The service's URL, or an option in it, cannot be right."""


class DecodeError(Error, ValueError):
    """The call was done, but its reply is not UTF-8 as ``decode=True`` demands."""


class ReplyError(Error):
    """The server answered with an error; the message is what it said.

    ``kind`` is its first word, such as ``"WRONGTYPE"``.
    """

    @property
    def kind(self) -> str:
        """The error's first word."""
        return str(self).partition(" ")[0]


class Rejected(ReplyError):
    """The server answered that it did not run the command: repeating is safe."""


class WatchError(Error):
    """A watched key was changed, so the transaction was not run."""


# What the core's codes mean for a program, whatever the outcome. All others go by outcome.
_BY_CODE: dict[str, type[Error]] = {
    "IOK_EURL": URLError,
    "IOK_EOPTION": URLError,
    "IOK_ETIMEOUT": Timeout,
    "IOK_EFORKED": Forked,
}
# These only if the call was never sent: the same failure after sending leaves the outcome open.
_BY_CODE_NEVER_SENT: dict[str, type[Error]] = {
    "IOK_EOVERLOAD": Overloaded,
    "IOK_ERESOLVE": Unavailable,
    "IOK_EREFUSED": Unavailable,
    "IOK_ECONNECT": Unavailable,
    "IOK_ETLS": Unavailable,
    "IOK_EAUTH": Unavailable,
    "IOK_EUNSAFE": Unsafe,
    "IOK_EINVAL": Unsafe,
    "IOK_ELIMIT": Unsafe,
    "IOK_ETYPE": TypeRefused,
    "IOK_ECLOSED": Closed,
    "IOK_ETHREAD": WrongThread,
}
_ENDINGS = {
    "done": "The call was done.",
    "never-sent": "The call was never sent.",
    "maybe-executed": "The call was sent: the server may have run it, or may still.",
    "rejected": "The server did not run the call.",
}


def _place(service: str, endpoint: str) -> str:
    if service and endpoint and endpoint not in service:
        return f"{service} ({endpoint}): "
    return f"{service or endpoint}: " if service or endpoint else ""


def _failure(code: str, outcome: str, text: str, service: str, endpoint: str) -> Error:
    """Make the exception for a failure of the core; called by it."""
    kind = _BY_CODE.get(code)
    if kind is None:
        if outcome == "never-sent":
            kind = _BY_CODE_NEVER_SENT.get(code, NeverSent)
        else:  # done: it was run, and only its reply is missing
            kind = MaybeExecuted if outcome == "maybe-executed" else Error
    place = "" if service and text.startswith(service) else _place(service, endpoint)
    message = f"{place}{text.rstrip('.')}{'' if text.endswith('?') else '.'}"
    if service and kind is not URLError:
        message = f"{message} {_ENDINGS.get(outcome, '')}".rstrip()
    return kind(message, code=code, outcome=outcome, service=service, endpoint=endpoint)


# Redis repeats the arguments of a command that it does not know; those are the program's data, not
# for logs.
_QUOTED_ARGUMENTS = ", with args beginning with:"


def _reply_error(
    outcome: str, text: str, service: str, endpoint: str, fields: dict[str, object] | None = None
) -> ReplyError:
    """Make the exception for an error that the server reports; called by the core."""
    if fields is not None and "sqlstate" in fields:
        from iokernel.postgres import make_error

        return make_error(outcome, text, service, endpoint, fields)
    kind = Rejected if outcome == "rejected" else ReplyError
    return kind(
        text.partition(_QUOTED_ARGUMENTS)[0],
        outcome="rejected" if outcome == "rejected" else "done",
        service=service,
        endpoint=endpoint,
    )


def _decode_error(service: str, endpoint: str) -> DecodeError:
    """Make the exception for a reply that is not UTF-8; called by the core."""
    return DecodeError(
        f"{_place(service, endpoint)}the reply is not UTF-8. The call was done; "
        "use a client with decode=False for such data.",
        outcome="done",
        service=service,
        endpoint=endpoint,
    )
