"""E-mail, as Prefect's server sends it for SIRI_NOTIFY: by its block, to a server that answers as SendGrid does."""

import pytest
from apprise.plugins.sendgrid import NotifySendGrid

from flows.notify import KEY, make_block
from siri.errors import InputError
from tests.posted import receiving

pytestmark = [pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")]  # what Apprise imports
API_KEY = "SG.not-a-key"
ADDRESS = "mailto:you@example.org,team@example.org?from=siri@example.org"


def test_an_e_mail_reaches_every_recipient_with_subject_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, API_KEY)
    with receiving(202) as (address, sent):
        monkeypatch.setattr(NotifySendGrid, "notify_url", f"{address}/v3/mail/send")
        monkeypatch.setattr(NotifySendGrid, "request_rate_per_sec", 0)
        make_block(ADDRESS).notify("the sweep is through", "SIRI: siri.sweep.ended")
    assert {mail.headers["Authorization"] for mail in sent} == {f"Bearer {API_KEY}"}
    recipients = [to["email"] for mail in sent for part in mail.body["personalizations"] for to in part["to"]]
    assert sorted(recipients) == ["team@example.org", "you@example.org"]
    for mail in (found.body for found in sent):
        assert mail["from"] == {"email": "siri@example.org"}
        assert mail["subject"] == "SIRI: siri.sweep.ended"
        assert "the sweep is through" in mail["content"][0]["value"]


def test_e_mail_without_a_key_says_by_whom_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(InputError, match=r"^SENDGRID_API_KEY: not set; .* by way of SendGrid, not through SMTP"):
        make_block(ADDRESS)
