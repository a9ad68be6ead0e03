"""The kinds of failure a user can meet, and the exit code each one has."""


class ShipbenchError(Exception):
    """Something went wrong while working; the message is one sentence for the user."""

    exit_code = 1


class InputError(ShipbenchError):
    """The request cannot be carried out as given; says what is wrong, where, and what to do."""

    exit_code = 2


class StoreError(ShipbenchError):
    """The results folder cannot be written to any more, so that no run can be kept."""


def did_you_mean(name: str, known: list[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest of ``known``, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
