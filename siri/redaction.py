"""The one function that takes passwords and tokens out of a text before it is shown, logged or stored."""

import re
from collections.abc import Iterator, Mapping
from os import environ
from urllib.parse import unquote

HIDDEN = "***"
ADDRESSES = re.compile(r"(_URL|_URI|_URLS|_URIS|_ENDPOINT|_DSN|_PROXY|^SIRI_STORE)$", re.IGNORECASE)
"""Environment variables that hold addresses: SIRI_STORE, SIRI_STUDY_URL, MLFLOW_TRACKING_URI, PREFECT_API_URL, …"""
SECRETS = re.compile(
    r"(PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|SERVER_KEY|ACCESS_KEY|AUTH_STRING|CREDENTIALS?)(_ID|_KEY)?$"
)
"""Environment variables that are secrets themselves."""
SHORTEST = 6
"""Characters of a secret that is looked for wherever it stands; shorter ones would hide words by chance."""
COMMON = frozenset(
    {"admin", "database", "default", "localhost", "master", "mlflow", "optuna", "password", "passwort", "postgres"}
    | {"postgresql", "prefect", "public", "secret", "siri", "token", "username"}
)
"""Passwords that are words of our own messages: hidden there, they would be told rather than kept."""

# Counts are bounded: a text may be made so that looking for the end of every beginning takes hours.
_WORD = r"(?:token|passw(?:or)?d|passwd|pwd|secret|api[_-]?key|access[_-]?key|auth|credential|signature)"
_USER = re.compile(r"((?<![\w+.-])[a-z][\w+.-]*:/{2,})(?!USER@)[^\s/?#'\"<>]{0,999}@", re.IGNORECASE)
_BROKEN_USER = re.compile(
    r"((?<![\w+.-])[a-z][\w+.-]*:/{2,})[^\s/?#:@'\"<>]{0,999}:(?!\d+(?:[/?#]|$))[^\s'\"<>]{0,999}@", re.IGNORECASE
)
_QUERY = re.compile(
    rf"([?&;#][\w.-]{{0,99}}?(?:{_WORD}[\w.-]{{0,99}}|\bkey|\bsig|\bcode)=)[^\s&;#'\"<>]+", re.IGNORECASE
)
_PAIR = re.compile(r"\b((?:ssl)?(?:password|passwd|pwd|secret)\s*=\s*)('[^']*'|[^\s&,;'\"]+)", re.IGNORECASE)
_HEADER = re.compile(r"\b((?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?)(?:\w+ +)?[^\s'\",]+", re.IGNORECASE)


def redact(text: str) -> str:
    """A text without users, passwords and tokens, which may stand in its addresses or anywhere in it.

    Known are the forms that addresses, queries, headers and libpq's settings have, and the values of the environment's
    variables that hold secrets. What is left of an address leads to the same place and is one still.
    """
    users, secrets = _known(environ)
    for user in sorted(users, key=len, reverse=True):
        text = text.replace(user, "")
    text = _USER.sub(r"\1", _BROKEN_USER.sub(r"\1", text))
    for secret in sorted(secrets, key=len, reverse=True):  # one may hold another
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    for pattern in (_QUERY, _PAIR, _HEADER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def _known(variables: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """What the environment's addresses have before their hosts, as in `user:password@`; and its secrets."""
    users: set[str] = set()
    secrets: set[str] = set()
    for name, value in variables.items():
        if ADDRESSES.search(name):
            users |= set(_users_of(value))
        elif name == "SIRI_NOTIFY":  # of a webhook the whole address is one
            secrets |= set(value.split())
        elif SECRETS.search(name.upper()):
            secrets |= {value, value.rpartition(":")[2]}
    passwords = {user[:-1].partition(":")[2] for user in users}
    secrets |= passwords | {unquote(password) for password in passwords}
    return users, {secret for secret in secrets if len(secret) >= SHORTEST and not _is_common(secret)}


def _is_common(secret: str) -> bool:
    return secret.rpartition(":")[2].casefold() in COMMON


def _users_of(value: str) -> Iterator[str]:
    """`user:password@` of the addresses in a variable, up to the last @: a password may hold @, / and # unencoded."""
    parts = re.split(r"[a-zA-Z][\w+.-]*://", value)
    for rest in parts[1:] or parts:  # a proxy's address may be without `http://`
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        user, at, _ = rest.rpartition("@")
        if at and ("@" in authority or ":" in authority):
            yield user + at
