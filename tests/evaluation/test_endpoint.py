"""A remote model, against a server on this machine that misbehaves in every way there is."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wherein.errors import InputError
from wherein.evaluation import connection
from wherein.evaluation.connection import ATTEMPTS, MAX_BODY, Connection, key_from
from wherein.evaluation.endpoint import Endpoint, Estimate, Limits
from wherein.evaluation.transcript import Reply

_spec = importlib.util.spec_from_file_location("fake_endpoint", Path(__file__).parents[1] / "fake_endpoint.py")
assert _spec is not None and _spec.loader is not None
fake_endpoint = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_endpoint)
says, sends, drops = fake_endpoint.says, fake_endpoint.sends, fake_endpoint.drops

KEY = "sk-a-very-secret-key"
PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connection, "sleep", clock.sleep)
    monkeypatch.setattr(connection, "monotonic", lambda: clock.now)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return clock


@pytest.fixture
def server() -> Iterator[Any]:
    with fake_endpoint.FakeEndpoint() as server:
        yield server


def ask(server: Any, *questions: str, key: str | None = KEY, **limits: Any) -> list[Reply]:
    with Endpoint(server.url, "some-model", key, Limits(**limits)) as endpoint:
        return list(endpoint.ask(PICTURE, questions or ["where?"]))


def test_what_is_sent_and_what_comes_back(server: Any) -> None:
    first, second = ask(server, "where?", "and there?", side=45, tokens=50)
    assert (first.text, first.cut, first.tokens) == ("[10, 20, 30, 40]", False, (700, 9)) and second.text == first.text
    assert server.questions == ["where?", "and there?"]
    request, headers = server.asked[0], server.headers[0]
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("some-model", 50, 0)
    assert headers["Authorization"] == f"Bearer {KEY}"
    kind, _, content = request["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (sent.format, sent.size) == ("JPEG", (45, 30))


def test_the_body_can_say_more_and_less(server: Any) -> None:
    ask(server, key=None, body={"max_tokens": None, "max_completion_tokens": 9, "messages": []})
    (request,) = server.asked
    assert "max_tokens" not in request and request["max_completion_tokens"] == 9 and len(request["messages"]) == 1
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ([{"type": "text", "text": "a "}, {"type": "image"}, {"type": "text", "text": "cat"}], "a cat")],
)
def test_what_models_say_besides_plain_text(server: Any, content: Any, text: str) -> None:
    server.script = [says(content, finish_reason="length")]
    (reply,) = ask(server)
    assert (reply.text, reply.cut) == (text, True)


@pytest.mark.parametrize(
    "usage", ["null", "{}", '{"prompt_tokens": 7}', '{"prompt_tokens": 7, "completion_tokens": null}']
)
def test_a_server_that_does_not_count(server: Any, usage: str) -> None:
    server.script = [sends(200, f'{{"choices": [{{"message": {{}}}}], "usage": {usage}}}')]
    (reply,) = ask(server)
    assert (reply.text, reply.cut, reply.tokens) == ("", False, None) and len(server.asked) == 1


def test_the_frame_takes_boxes_back() -> None:
    endpoint = Endpoint("http://localhost/v1", "m", limits=Limits(side=512))
    frame = endpoint.frame_of(2048, 1000)
    assert (frame.model_width, frame.model_height) == (512, 250)
    np.testing.assert_allclose(frame.to_image([[128, 25, 512, 250]]), [[512, 100, 2048, 1000]])
    assert endpoint.frame_of(300, 200).model_width == 300  # nothing is scaled up
    assert endpoint.frame_of(100_000, 10).model_height == 1


@pytest.mark.parametrize("url", ["http://localhost/v1", "http://localhost/v1/", "http://localhost/v1/chat/completions"])
def test_the_address(url: str) -> None:
    assert Endpoint(url, "m").settings["endpoint"] == "http://localhost/v1/chat/completions"


@pytest.mark.parametrize(
    "turn",
    [
        drops,
        sends(429),
        sends(500, "<html>"),
        sends(503, '{"error": "busy"}'),
        sends(200, "garbage"),
        sends(200, '{"choices": []}'),
        sends(200, '{"choices": [{"message": "a cat"}]}'),
        sends(200, '{"error": {"message": "no"}}'),
        sends(200, "[" * 100_000),
        sends(200, "x" * (MAX_BODY + 1)),
        sends(200, "not gzip", Content_Encoding="gzip"),
    ],
)
def test_what_may_pass_is_asked_again(server: Any, clock: Clock, turn: Any) -> None:
    server.script = [turn, turn]
    (reply,) = ask(server)
    assert reply.text == "[10, 20, 30, 40]" and len(server.asked) == 3
    first, second = clock.slept
    assert 1 <= first <= 1.5 and 2 <= second <= 3


@pytest.mark.parametrize("turn", [sends(500, '{"error": {"message": "Out of cheese."}}'), drops])
def test_what_does_not_pass_ends_in_one_sentence(server: Any, turn: Any) -> None:
    server.script = [turn] * ATTEMPTS
    with pytest.raises(InputError, match=f"gave no answer in {ATTEMPTS} attempts: ") as raised:
        ask(server)
    assert len(server.asked) == ATTEMPTS and str(raised.value).count(".") - server.url.count(".") == 1


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"127.0.0.1:9/v1/chat/completions gave no answer in 5 attempts: "):
        list(Endpoint("http://127.0.0.1:9/v1", "m").ask(PICTURE, ["where?"]))


def test_a_server_that_hangs(server: Any) -> None:
    server.script = [server.hangs]
    (reply,) = ask(server, seconds=0.3)
    assert reply.text == "[10, 20, 30, 40]" and len(server.asked) == 2
    server.script = [server.hangs] * ATTEMPTS
    with pytest.raises(InputError, match="none within 0.1 s"):
        ask(server, seconds=0.1)


def test_a_server_that_trickles(server: Any, clock: Clock) -> None:
    """Each part comes in time, the whole does not."""

    def trickle(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(3):
            handler.wfile.write(b" " * 70_000)
            handler.wfile.flush()
            clock.now += 50

    server.script = [trickle] * ATTEMPTS
    with pytest.raises(InputError, match="none within 30 s"):
        ask(server, seconds=30)


@pytest.mark.parametrize("header", ["7", "7.0", "date"])
def test_a_server_says_how_long_to_wait(server: Any, clock: Clock, header: str) -> None:
    if header == "date":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)
    server.script = [sends(429, Retry_After=header)]
    ask(server)
    (slept,) = clock.slept
    assert slept == 7 or 0 < slept <= 8


@pytest.mark.parametrize("header", ["soon", "nan", "", "-5"])
def test_a_wait_that_makes_no_sense(server: Any, clock: Clock, header: str) -> None:
    server.script = [sends(503, Retry_After=header)]
    ask(server)
    assert 0 <= clock.slept[0] <= 1.5


def test_a_wait_that_is_too_long(server: Any, clock: Clock) -> None:
    server.script = [sends(429, '{"error": {"message": "Daily limit."}}', Retry_After="86400")]
    with pytest.raises(InputError, match=r"asks to wait for 86400 s \(status 429: Daily limit\): try again later"):
        ask(server)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("turn", "sentence"),
    [
        (sends(401, json.dumps({"error": {"message": f"Wrong: {KEY[:9]}***"}})), "refuses (401): it does not accept"),
        (sends(403, KEY), "refuses (403): it does not accept the key"),
        (sends(400, '{"error": {"message": "No\\n such\\u001b[31m model: SK"}}'), "(400): No such [31m model: SK."),
        (sends(404, '{"error": "unknown"}'), "refuses the request (404): unknown."),
        (sends(404, "<html>"), "refuses the request (404)."),
        (sends(422, '{"error": {"code": 1}}'), "refuses the request (422)."),
        (sends(400, json.dumps({"error": {"message": "long " * 999}})), "long long."),
        (sends(307, Location="http://elsewhere/"), "redirects (307)"),
    ],
)
def test_what_will_not_pass_is_told_at_once(server: Any, turn: Any, sentence: str) -> None:
    server.script = [turn]
    with pytest.raises(InputError) as raised:
        ask(server)
    assert sentence in str(raised.value) and len(server.asked) == 1 and len(str(raised.value)) < 450
    assert str(raised.value).isprintable() and KEY[:9] not in str(raised.value)


def test_a_missing_key_is_told(server: Any) -> None:
    server.script = [sends(401)]
    with pytest.raises(InputError, match="it wants a key, and none was given"):
        ask(server, key=None)


def test_the_key_is_nowhere(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.script = [says(f"your key is {KEY}"), sends(400, json.dumps({"error": {"message": f"Bearer {KEY}?"}}))]
    with Endpoint(server.url, "m", KEY) as endpoint:
        (reply,) = endpoint.ask(PICTURE, ["where?"])
        assert reply.text == "your key is ***"
        with pytest.raises(InputError, match=r"Bearer \*\*\*\?"):
            list(endpoint.ask(PICTURE, ["where?"]))
        assert KEY not in json.dumps(endpoint.settings) + repr(endpoint) + caplog.text


def test_requests_keep_to_the_rate(server: Any, clock: Clock) -> None:
    server.script = [says("a"), sends(500), says("b")]
    ask(server, "one", "two", "three", per_minute=30)
    assert len(server.asked) == 4
    assert clock.now - 1000 >= 3 * 2 and sum(clock.slept) < 3 * 2 + 1.5


@pytest.mark.parametrize(
    ("url", "key", "sentence"),
    [
        ("", None, "no URL"),
        ("api.openai.com/v1", None, "no URL"),
        ("ftp://localhost/v1", None, "no URL"),
        ("http://", None, "no URL"),
        ("http://[::1/v1", None, "no URL"),
        ("https://me:secret@localhost/v1", None, "no password"),
        ("https://localhost/v1?key=secret", None, "no password"),
        ("http://example.org/v1", KEY, "would travel unencrypted to example.org"),
        ("http://192.168.0.7:8000/v1", KEY, "would travel unencrypted"),
        ("http://localhost.example.org/v1", KEY, "would travel unencrypted"),
        ("https://localhost/v1", "sk-a\nb", "The key holds a space"),
        ("https://localhost/v1", "sk-\u00e4", "The key holds a space"),
    ],
)
def test_addresses_and_keys_that_are_refused(url: str, key: str | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as raised:
        Endpoint(url, "m", key)
    assert "secret" not in str(raised.value) and "sk-" not in str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_a_key_may_go_to_this_machine(host: str) -> None:
    Connection(f"http://{host}:8000/v1", KEY, None, 1.0).close()


def test_the_key_is_named_and_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    monkeypatch.setenv("EMPTY_KEY", "")
    assert key_from("SOME_KEY") == KEY and key_from("EMPTY_KEY") is None and key_from("NO_SUCH_KEY") is None
    for given in (KEY, "gsk_abc", ""):
        with pytest.raises(InputError, match="the NAME of an environment variable") as raised:
            key_from(given)
        assert not given or given not in str(raised.value)


def test_an_estimate_against_the_slow_way() -> None:
    endpoint = Endpoint("http://localhost/v1", "m", limits=Limits(side=280, tokens=100))
    estimate = endpoint.estimate([(560, 560, ["12345678", "1234"]), (28, 28, ["1"]), (9, 9, [])])
    assert estimate == Estimate(requests=3, text=2 + 1 + 1, images=100 + 100 + 1, answers=300)
    assert estimate.cost(2.0, 10.0) == pytest.approx((205 * 2 + 300 * 10) / 1e6)
