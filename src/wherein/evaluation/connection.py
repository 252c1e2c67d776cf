"""A patient connection to an HTTP endpoint that takes JSON: one key, one rate, retries where they may help.

Notable choices:
- httpx2, which huggingface_hub brings along, and not the `openai` client: that would add itself, jiter and sniffio for
  one POST, and sends the user's platform with each request. Its retries fit on a page; what it lacks, a rate limit and
  a bound on the size of an answer, would be ours anyway
- the key goes into one header and nowhere else: what the server says is cut, made printable and cleared of it before
  anyone sees it. Redirects are not followed, and the key does not travel unencrypted
- what may pass is tried again: no connection, a time-out, status 408, 409, 425, 429 and 5xx, an unreadable answer. What
  will not pass is one sentence at once
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import random
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic, sleep
from typing import Any, TypeVar

from wherein.errors import InputError

ATTEMPTS = 5  # at one request
LONGEST_WAIT = 600.0  # seconds that a server may ask for
MAX_BODY = 2**22  # bytes of a server's answer
_PASSING = (408, 409, 425, 429)

T = TypeVar("T")


class Connection:
    """Sends JSON to one address, at most `per_minute` times a minute, and waits `seconds` for each answer."""

    def __init__(self, url: str, key: str | None, per_minute: float | None, seconds: float) -> None:
        """`key` is sent as a bearer token.

        Raises:
            InputError: the URL is unusable or holds a secret, the key is not printable or would travel unencrypted.
        """
        import httpx2

        _check(url, key)
        self.url, self._key = url, key
        self._per_minute, self._seconds, self._earliest = per_minute, seconds, 0.0
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client = httpx2.Client(headers=headers, timeout=seconds)

    def close(self) -> None:
        """Let go of the server."""
        self._client.close()

    def post(self, request: Mapping[str, Any], read: Callable[[bytes], T | None]) -> tuple[T, float]:
        """What `read` makes of the content that answers a request, None meaning that it is unreadable, and the seconds
        that the answer took.

        Raises:
            InputError: the server refuses, or there is no readable answer in `ATTEMPTS` attempts.
        """
        for attempt in range(ATTEMPTS):
            self._take_turn()
            asked = monotonic()
            answer, problem, wait = self._try(request, read)
            if answer is not None:
                return answer, monotonic() - asked
            if wait is not None and wait > LONGEST_WAIT:
                raise InputError(f"The endpoint {self.url} asks to wait for {wait:.0f} s ({problem}): try again later.")
            if attempt + 1 < ATTEMPTS:
                sleep(2.0**attempt * random.uniform(1.0, 1.5) if wait is None else wait)
        raise InputError(f"The endpoint {self.url} gave no answer in {ATTEMPTS} attempts: {problem}.")

    def hidden(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self._key, "***") if self._key else text

    def _try(self, request: Mapping[str, Any], read: Callable[[bytes], T | None]) -> tuple[T | None, str, float | None]:
        """One attempt: the answer, or what is wrong and how long the server wants us to wait, if it says.

        Raises InputError for what no further attempt will change.
        """
        import httpx2

        try:
            status, headers, content = self._send(request)
        except httpx2.TimeoutException:
            return None, f"none within {self._seconds:g} s", None
        except httpx2.RequestError as error:
            return None, self._said(str(error)) or type(error).__name__, None
        if status == 200:
            return read(content), "what comes back is no chat completion", None
        if status in _PASSING or status >= 500:
            return None, f"status {status}{self._reason(content)}", _wanted(headers.get("retry-after"))
        raise InputError(self._refusal(status, content))

    def _take_turn(self) -> None:
        """Wait until the rate limit allows a request."""
        if self._per_minute is not None:
            wait = self._earliest - monotonic()
            if wait > 0:
                sleep(wait)
            self._earliest = max(self._earliest, monotonic()) + 60 / self._per_minute

    def _send(self, request: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content of one request, within the limits of time and size.

        Raises httpx2.RequestError where it fails.
        """
        import httpx2

        late, content = monotonic() + self._seconds, b""
        with self._client.stream("POST", self.url, json=request) as response:
            for part in response.iter_bytes():
                content += part
                if len(content) > MAX_BODY:
                    raise httpx2.DecodingError(f"what comes back is longer than {MAX_BODY} bytes")
                if monotonic() > late:  # the client's own limit is for each part
                    raise httpx2.ReadTimeout("it answers too slowly")
            return response.status_code, response.headers, content

    def _refusal(self, status: int, content: bytes) -> str:
        """The sentence for a status that no further attempt will change."""
        if status in (401, 403):  # what the server says to it may quote a part of the key
            reason = "it does not accept the key" if self._key else "it wants a key, and none was given"
            return f"The endpoint {self.url} refuses ({status}): {reason}."
        if 300 <= status < 400:
            return f"The endpoint {self.url} redirects ({status}), and no redirect is followed: give the final address."
        return f"The endpoint {self.url} refuses the request ({status}){self._reason(content)}."

    def _reason(self, content: bytes) -> str:
        """What a server says of an error, behind a colon; empty where it says nothing readable."""
        try:
            error = json.loads(content)["error"]
            said = self._said(str(error["message"] if isinstance(error, dict) else error))
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        return said and f": {said}"

    def _said(self, text: str) -> str:
        """What others say, short, in one line, and fit for a terminal."""
        plain = "".join(character if character.isprintable() else " " for character in self.hidden(text))
        return " ".join(plain.split())[:300].rstrip(". ")


def key_from(variable: str) -> str | None:
    """The key in an environment variable; None where that is not set or empty.

    Raises InputError for what is no name of a variable, without repeating it: it may be the key.
    """
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
        raise InputError("A key is given by the NAME of an environment variable, in capital letters, never by itself.")
    return os.environ.get(variable, "").strip() or None


def _check(url: str, key: str | None) -> None:
    """Raise InputError unless the URL can be used and quoted, and the key sent there."""
    import httpx2

    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise InputError("The endpoint is no URL: give its base, such as https://api.openai.com/v1.") from error
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise InputError("The endpoint's URL must hold no password, query or fragment: a key is given by --key.")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"The endpoint {url!a} is no URL: give its base, such as https://api.openai.com/v1.")
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError("The key holds a space or a character that is not ASCII: look at its environment variable.")
    if key is not None and parsed.scheme == "http" and not _here(parsed.host):
        raise InputError(
            f"The key would travel unencrypted to {parsed.host}: give an https URL, or empty the key's variable."
        )


def _here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _wanted(header: str | None) -> float | None:
    """The seconds that a Retry-After asks to wait, given as seconds or as a date; None where it does not say."""
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header or "") - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
