"""Notifications through Prefect's blocks and automations, which `siri deploy` makes from SIRI_NOTIFY.

A flow emits an event with a `message`; an automation of the server sends it on to where SIRI_NOTIFY says.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from prefect.automations import AutomationCore
from prefect.blocks.core import Block
from prefect.blocks.notifications import SendgridEmail
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import emit_event
from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.schemas.automations import EventTrigger
from prefect.types import SecretDict
from pydantic import SecretStr

from siri.errors import InputError

NOTIFY = "SIRI_NOTIFY"
"""Environment variable of `siri up` and `siri deploy`: where to, several with blanks between; empty: nowhere more.

`https://…`, a webhook that takes JSON with a `text`; `mailto:TO[,TO]?from=SENDER`, e-mail by way of SendGrid.
"""
KEY = "SENDGRID_API_KEY"
PREFIX = "siri: notify"
BLOCK = "siri-notify"
SWEEP, ACTION = "siri.sweep", "siri.action"
"""What the resources of sweeps' events begin with; label of an alarm's resource: what the monitor did."""
STOPPED = "Flow run encountered an exception: AlarmError"
"""What Prefect says of a run that a monitor has stopped; word of that is sent by the monitor's own event."""
TRIGGERS = {
    "sweeps": {"match": {"prefect.resource.id": f"{SWEEP}.*"}, "expect": {f"{SWEEP}.*"}},
    "monitors": {
        "match": {"prefect.resource.id": "siri.run.*", ACTION: ["stop", "pause"]},
        "expect": {"siri.alarm.*"},
    },
    "failures": {
        "match": {"prefect.resource.id": "prefect.flow-run.*", "prefect.state-message": f"!{STOPPED}*"},
        "match_related": {"prefect.resource.id": "prefect.tag.siri", "prefect.resource.role": "tag"},
        "expect": {"prefect.flow-run.Failed"},  # a crash is taken up again; one that keeps crashing is set to Failed
    },
}
OURS = "{{ event.resource.name }}: {{ event.payload.message }}"
TEXTS = {
    "sweeps": OURS,
    "monitors": "{{ event.resource.name }}: {{ event.payload.action }}, step {{ event.payload.step }}: "
    "{{ event.payload.message }}",
    "failures": "{{ flow_run.name }} failed: {{ flow_run.state.message }}",
}
ADDRESS = re.compile(r"[^@\s,]+@[^@\s,]+")


def tell(study: str, what: str, lines: Sequence[str]) -> None:
    """Emit an event of a sweep for whoever is to hear of it: `ended`, `capped` or `changed`."""
    resource = {"prefect.resource.id": f"{SWEEP}.{study}", "prefect.resource.name": study}
    emit_event(f"{SWEEP}.{what}", resource, payload={"message": "\n".join(lines)})


def make_notifications(client: SyncPrefectClient) -> None:
    """Blocks and automations for what SIRI_NOTIFY names, in place of those there; unset, these stay.

    Raises InputError, which does not show the value: an address of a webhook is a secret.
    """
    given = os.environ.get(NOTIFY)
    if given is None:
        return
    blocks = [make_block(word) for word in given.split()]
    _clear(client)
    for number, block in enumerate(blocks, 1):
        made = block.save(f"{BLOCK}-{number}", overwrite=True)
        for automation in _automations(block, UUID(str(made)), number):
            client.create_automation(automation)


def _clear(client: SyncPrefectClient) -> None:
    for automation in client.read_automations():
        if automation.name.startswith(PREFIX):
            client.delete_automation(automation.id)
    for slug in ("webhook", "sendgrid-email"):
        for document in client.read_block_documents_by_type(slug):
            if document.name is not None and document.name.startswith(BLOCK):
                client.delete_block_document(document.id)


def _automations(block: Block, made: UUID, number: int) -> Iterator[AutomationCore]:
    for name, trigger in TRIGGERS.items():
        text: str = TEXTS[name]
        action: Any
        if isinstance(block, Webhook):
            action = CallWebhook(block_document_id=made, payload=_as_json(text))
        else:
            action = SendNotification(block_document_id=made, subject="SIRI: {{ event.event }}", body=text)
        yield AutomationCore(
            name=f"{PREFIX} {number}: {name}", trigger=EventTrigger.model_validate(trigger), actions=[action]
        )


def _as_json(text: str) -> str:
    """A JSON object with the text that a template makes, whatever characters are in it."""
    return "{% set text %}" + text + '{% endset %}{"text": {{ text | string | tojson }}}'


def make_block(word: str) -> Block:
    """The block of Prefect's for one address of SIRI_NOTIFY. Raises InputError, which does not show it."""
    try:
        address = urlsplit(word)
        host = address.hostname
    except ValueError:
        address, host = urlsplit(""), None
    if address.scheme in ("http", "https") and host:
        headers = SecretDict({"Content-Type": "application/json"})
        return Webhook(url=SecretStr(word), headers=headers)
    if address.scheme != "mailto":
        raise InputError(f"{NOTIFY}: must be https://… or mailto:TO?from=SENDER, several with blanks between")
    recipients, sender = address.path.split(","), parse_qs(address.query).get("from", [""])[0]
    if not all(map(ADDRESS.fullmatch, [*recipients, sender])):
        raise InputError(f"{NOTIFY}: an e-mail needs addresses, as in mailto:you@example.org?from=siri@example.org")
    if not os.environ.get(KEY):
        raise InputError(f"{KEY}: not set; e-mail, which {NOTIFY} asks for, goes by way of SendGrid, not through SMTP")
    return SendgridEmail(api_key=SecretStr(os.environ[KEY]), sender_email=sender, to_emails=recipients)
