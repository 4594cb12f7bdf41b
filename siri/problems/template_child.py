"""A child process that renders a stranger's chat template within bounds of time and memory, under clocks of its own.

It is run by its path and imports nothing of siri. stdin: the order; stdout: what came of it, both JSON. Whatever the
template raises ends it, with a traceback that its parent reads the last line of.
"""

import hashlib
import json
import random
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

CLOCKS = (datetime(2001, 2, 3, 4, 5, 6), datetime(2031, 11, 28, 17, 48, 59))
"""Two moments that have no part of a date or a time in common."""


class DrawsError(Exception):
    """A template asked for a random choice."""


def main() -> None:
    """Render the order's messages; says the text's sha256, whether it comes again, and whether clocks change it."""
    order = json.load(sys.stdin)
    from transformers.utils.chat_template_utils import render_jinja_template

    _refuse_draws()
    _limit(order["seconds"], order["bytes"])

    def render(moment: datetime) -> str:
        rendered, _ = render_jinja_template(
            conversations=[order["messages"]],
            chat_template=order["template"],
            add_generation_prompt=True,
            **order["variables"],
            strftime_now=moment.strftime,
        )
        return str(rendered[0])

    first, again = (render(datetime.fromisoformat(order["moment"])) for _ in range(2))
    told = {
        "sha256": hashlib.sha256(first.encode(errors="surrogatepass")).hexdigest(),
        "repeats": first == again,
        "steady": all(render(moment) == first for moment in CLOCKS),
    }
    json.dump(told, sys.stdout)


def _refuse_draws() -> None:
    """Jinja draws at two places, a filter and `lipsum`: both raise here, so that even a likely choice is found out."""
    import jinja2.utils

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise DrawsError

    for name in ("choice", "randrange"):
        setattr(random, name, refuse)
        setattr(jinja2.utils, name, refuse)


def _limit(seconds: int, size: int) -> None:
    import psutil

    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = round(used.ru_utime + used.ru_stime) + seconds
    memory = psutil.Process().memory_info().vms + size
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
