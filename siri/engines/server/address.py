"""Where the server is and which key it gets: from the environment alone, and in no record."""

import ipaddress
import os
from urllib.parse import urlsplit

from siri.errors import InputError
from siri.reading import require_text

ADDRESS = "SIRI_SERVER_URL"
KEY = "SIRI_SERVER_KEY"
OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_HOST = "api.openai.com"


def server_address() -> str:
    """The address that SIRI_SERVER_URL names, as in http://127.0.0.1:8000/v1. Raises InputError for none."""
    text = require_text(os.environ.get(ADDRESS, "").strip(), ADDRESS)
    if not text:
        raise InputError(f"{ADDRESS}: names no server; `siri evaluate --server http://127.0.0.1:8000/v1 --model NAME`")
    try:
        found = urlsplit(text)
        host, _ = found.hostname, found.port
    except ValueError as error:
        raise InputError(f"--server={text}: {error}") from None
    if found.username is not None or found.password is not None:
        raise InputError(f"--server: holds a user or password; a key belongs in the environment, {KEY}")
    if found.scheme not in ("http", "https") or not host or found.query or found.fragment:
        raise InputError(f"--server={text}: must look like http://127.0.0.1:8000/v1")
    return text.rstrip("/")


def server_key(address: str) -> str:
    """The key for a server; empty for none.

    OPENAI_API_KEY, which many have in their environment for other things, goes to OpenAI's own host and to no other.
    """
    own = os.environ.get(KEY, "")
    found = urlsplit(address)
    if not own and (found.scheme, found.hostname) == ("https", OPENAI_HOST):
        own = os.environ.get(OPENAI_KEY, "")
    if not own.isascii() or not own.isprintable():
        raise InputError(f"{KEY}: holds what no header can; allowed are printable ASCII characters")
    return own


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own, where no proxy has anything to do."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
