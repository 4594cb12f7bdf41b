"""One question to a server over HTTP: whether it lives, and what it says."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


def ask(url: str, seconds: float, headers: Mapping[str, str] | None = None, body: Any = None) -> "httpx.Response":
    """The answer to a GET, or to a POST of a JSON body; `seconds`: the longest wait for it.

    Raises OSError, which says why, where no server answers; an answer of any status is one.
    """
    import httpx  # brings half a second's worth of modules, which most commands do without

    given: dict[str, Any] = {"headers": headers, "timeout": seconds, "verify": url.startswith("https")}
    try:
        if body is None:
            return httpx.get(url, follow_redirects=True, **given)
        return httpx.post(url, json=body, **given)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:  # ImportError: a proxy's scheme
        raise OSError(str(error) or type(error).__name__) from None
