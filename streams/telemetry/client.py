"""A client of the admin address of a running program."""

from __future__ import annotations

from streams.errors import PipelineError


class NotAnswered(PipelineError):
    """An address does not answer, or it is not one of our admin addresses; the text says what to check."""


def ask(admin: str, path: str, *, seconds: float = 10.0) -> bytes | None:
    """The answer at a path of an admin address (HOST:PORT or URL) within `seconds`; None for 404."""
    import urllib.error  # with email and all of HTTP, which programs that only know `NotAnswered` need not load
    import urllib.request

    url = (admin if "://" in admin else f"http://{admin}").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise NotAnswered(f"{admin} is not a valid admin address; give HOST:PORT or http://HOST:PORT")
    try:
        with urllib.request.urlopen(url + path, timeout=seconds) as answer:  # noqa: S310 — http(s) only, see above
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            if error.code == 404:
                return None
            raise NotAnswered(f"{url}{path} answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise NotAnswered(
            f"{url} does not answer: {reason}; is it the `admin.address` of a running program?"
        ) from error
