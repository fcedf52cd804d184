"""Whether an address answers."""

from __future__ import annotations

from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

TIMEOUT = 5.0


def unreachable(url: str, *, timeout: float = TIMEOUT) -> str | None:
    """Asks a server for a file's header, not for the file.

    Args:
        url: http or https.
        timeout: In seconds.

    Returns:
        Why the file cannot be fetched from here, or None if it can.
    """
    try:
        with urlopen(Request(url, method='HEAD'), timeout=timeout):
            return None
    except HTTPError as error:
        # a server may serve files and refuse this question
        return None if error.code == 405 else f'the server answers {error.code} {error.reason}'
    except URLError as error:
        return str(error.reason)
    except (HTTPException, OSError, ValueError) as error:
        return str(error) or type(error).__name__
