"""The command line of webhooks: secrets, and what a delivery is told as."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from strata.cli.arguments import WEBHOOK_SECRET, webhook_of
from strata.cli.main import app
from strata.cli.operations.webhooks import _show
from strata.core import DeliveryAttempt, DeliveryState, DeliveryView, WebhookTarget
from strata.errors import InvalidInput


def test_a_new_secret_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {CliRunner().invoke(app, ["webhooks", "secret"]).output.strip() for _ in range(2)}
    assert len(secrets) == 2
    for secret in secrets:
        monkeypatch.setenv(WEBHOOK_SECRET, secret)
        assert webhook_of("https://example.org") == WebhookTarget(url="https://example.org", secret=SecretStr(secret))


@pytest.mark.parametrize("secret", ["", " ", "whsec_short"])
def test_a_webhook_without_a_secret_is_refused(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK_SECRET, secret)
    assert webhook_of(None) is None
    with pytest.raises(InvalidInput, match=WEBHOOK_SECRET) as refused:
        webhook_of("https://example.org")
    assert "\n" not in str(refused.value) and "short" not in str(refused.value)


def test_a_delivery_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = [DeliveryAttempt(at=datetime(2026, 11, 29, tzinfo=UTC), seconds=0.5, status=503)]
    view = DeliveryView(
        job="0" * 22,
        receiver="https://example.org",
        state=DeliveryState.FAILED,
        message="msg_1",
        next_attempt_at=None,
        attempts=attempts,
    )
    _show(view, as_json=False)
    assert capsys.readouterr().out == f"{'0' * 22}  failed  https://example.org  1 attempt, the last: status 503\n"
    _show(view, as_json=True)
    assert DeliveryView.model_validate_json(capsys.readouterr().out) == view
