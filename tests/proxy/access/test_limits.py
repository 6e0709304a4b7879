"""Whether one more request may come in."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from proxy.access.keys import Client, hash_of
from proxy.access.limits import Limits
from proxy.http.errors import ApiError
from store.settings.config import ApiKey
from store.settings.limits import RateLimits, ServerLimits
from tests.helpers.raw_http import Raw
from tests.helpers.serving import ProxyThread, settings, wait_until
from tests.helpers.teacher_server import LoopbackServer, completion

ONE = ApiKey(key="sk-one", name="one", limits=RateLimits(in_flight=2, requests_per_minute=3))
TWO = ApiKey(key="sk-two", name="two", limits=RateLimits(tokens_per_minute=100))
NOBODY = Client(None, None)


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


def limits(tmp_path, clock=None, **changes):
    return Limits(ServerLimits(**changes), [ONE, TWO], tmp_path, clock=clock or Clock())


def client(key):
    return Client(hash_of(key), None, key.name)


def admit(limits, who, size=0):
    ticket = limits.admit(who)
    ticket.arrived(size)
    return ticket


def refused(limits, who, size=10):
    with pytest.raises(ApiError) as caught:
        admit(limits, who, size)
    assert caught.value.status == 429
    seconds = int(dict(caught.value.headers)[b"retry-after"])
    assert seconds >= 1
    return caught.value.message, seconds


def test_a_key_has_a_limit_of_requests_in_flight(tmp_path):
    found = limits(tmp_path)
    tickets = [admit(found, client(ONE), 10) for _ in range(2)]
    assert "requests at a time of the key one" in refused(found, client(ONE))[0]
    admit(found, client(TWO), 10)  # another key is not held up
    tickets[0].release()
    admit(found, client(ONE), 10)


def test_all_keys_share_a_limit_of_requests_in_flight(tmp_path):
    found = limits(tmp_path, in_flight=1)
    ticket = admit(found, NOBODY, 0)
    assert "of all clients" in refused(found, client(TWO))[0]
    ticket.release()
    assert found.in_flight == 0
    admit(found, client(TWO), 0)


def test_all_keys_share_a_limit_of_megabytes_in_flight(tmp_path):
    found = limits(tmp_path, in_flight_mb=1)
    ticket = admit(found, NOBODY, 900_000)
    assert "megabytes" in refused(found, NOBODY, 200_000)[0]
    ticket.release()
    whole = admit(found, NOBODY, 5_000_000)  # alone, one may be of any size
    refused(found, NOBODY, 1)
    whole.release()
    admit(found, NOBODY, 200_000)


def test_megabytes_that_were_announced_and_never_came_hold_nobody_up(tmp_path):
    found = limits(tmp_path, in_flight_mb=1)
    for _ in range(100):
        admit(found, client(ONE if _ < 2 else TWO))
    admit(found, client(TWO), 400_000)


def test_one_of_several_keys_leaves_the_others_half_of_the_megabytes(tmp_path):
    found = limits(tmp_path, in_flight_mb=1)
    ticket = admit(found, client(TWO), 400_000)
    message, _ = refused(found, client(TWO), 200_000)
    assert "megabytes" in message and "of the key two" in message
    admit(found, client(ONE), 400_000)
    ticket.release()
    admit(found, client(TWO), 200_000)


def test_a_body_that_grows_over_the_limit_is_refused_on_its_way(tmp_path):
    found = limits(tmp_path, in_flight_mb=1)
    first = admit(found, NOBODY, 500_000)
    second = admit(found, NOBODY, 500_000)
    with pytest.raises(ApiError):
        second.arrived(200_000)
    second.release()
    first.arrived(5_000_000)  # alone, one may be of any size
    first.release()
    admit(found, NOBODY, 1_000_000)


def test_a_key_may_have_a_limit_of_megabytes_of_its_own(tmp_path):
    three = ApiKey(key="sk-three", name="three", limits=RateLimits(in_flight_mb=0.1))
    found = Limits(ServerLimits(), [three], tmp_path)
    admit(found, client(three), 90_000)
    assert "of the key three" in refused(found, client(three), 90_000)[0]


def test_a_key_has_a_rate_of_requests(tmp_path):
    clock = Clock()
    found = limits(tmp_path, clock)
    for _ in range(3):
        admit(found, client(ONE), 10).release()
    message, seconds = refused(found, client(ONE))
    assert "requests per minute of the key one" in message and seconds == 20
    clock.now += 20
    admit(found, client(ONE), 10)


def test_tokens_are_counted_when_they_are_known(tmp_path):
    clock = Clock()
    found = limits(tmp_path, clock)
    admit(found, client(TWO), 10).release(tokens=250)
    message, seconds = refused(found, client(TWO))
    assert "tokens per minute of the key two" in message and seconds == 90
    clock.now += 90
    admit(found, client(TWO), 10)


def test_a_refused_request_uses_up_no_other_limit(tmp_path):
    clock = Clock()
    found = limits(tmp_path, clock, requests_per_minute=4)
    for _ in range(3):
        admit(found, client(ONE), 10).release()
    for _ in range(10):
        refused(found, client(ONE))
    admit(found, NOBODY, 10)
    assert "of all clients" in refused(found, NOBODY)[0]


def test_workers_count_rates_together(tmp_path):
    here, there = (limits(tmp_path, requests_per_minute=2) for _ in range(2))
    admit(here, NOBODY)
    admit(there, NOBODY)
    refused(here, NOBODY)
    refused(there, NOBODY)


# ---- through the proxy -------------------------------------------------------------------------


def ask(proxy, key="sk-one"):
    return httpx.post(
        f"{proxy.base_url}/chat/completions",
        json={"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]},
        headers={"authorization": f"Bearer {key}"},
        timeout=30,
    )


def keyed(teacher, tmp_path, **limit):
    entry = {"key": "sk-one", "name": "one", "limits": limit}
    return settings(teacher.base_url, tmp_path, server={"keys": [entry]})


@pytest.mark.slow
def test_over_its_rate_a_client_gets_429_with_retry_after(tmp_path):
    with (
        LoopbackServer() as teacher,
        ProxyThread(keyed(teacher, tmp_path, requests_per_minute=2)) as proxy,
    ):
        answers = [ask(proxy) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 429]
        error = answers[-1].json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert len(teacher.requests) == 2
        proxy.wait_for_traces(2)
        # passed-through requests count too, and those without a body are free
        passed = httpx.get(f"{proxy.base_url}/files", headers={"authorization": "Bearer sk-one"})
        assert passed.status_code == 429
        models = httpx.get(f"{proxy.base_url}/models", headers={"authorization": "Bearer sk-one"})
        assert models.status_code == 200
        with pytest.raises(openai.RateLimitError):
            openai.OpenAI(
                base_url=proxy.base_url, api_key="sk-one", max_retries=0
            ).chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])


def test_tokens_of_answers_count(tmp_path):
    with (
        LoopbackServer(lambda _: completion("which takes ten tokens")) as teacher,
        ProxyThread(keyed(teacher, tmp_path, tokens_per_minute=5)) as proxy,
    ):
        assert [ask(proxy).status_code for _ in range(2)] == [200, 429]


@pytest.mark.slow
def test_a_request_is_in_flight_until_it_ends_however_it_ends(tmp_path):
    with (
        LoopbackServer(lambda _: completion("at last").slow(1.5)) as teacher,
        ProxyThread(keyed(teacher, tmp_path, in_flight=1)) as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(ask, proxy)
        wait_until(lambda: teacher.requests)
        assert ask(proxy).status_code == 429
        assert first.result().status_code == 200
        # a client that hangs up leaves its place too, before the teacher has answered
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{proxy.base_url}/chat/completions",
                json={"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]},
                headers={"authorization": "Bearer sk-one"},
                timeout=0.3,
            )
        wait_until(lambda: ask(proxy).status_code == 200)


def test_a_start_of_the_machine_forgets_the_rates_of_before(tmp_path):
    """The clock of all workers begins again then; a set clock does not touch it."""
    before = Clock()
    refused_one = limits(tmp_path, before)
    for _ in range(3):
        refused_one.admit(client(ONE)).release()
    refused(refused_one, client(ONE))
    refused(limits(tmp_path, before), client(ONE))  # a worker that starts again counts on
    after = Clock()
    after.now = 5.0
    limits(tmp_path, after).admit(client(ONE)).release()


def test_rates_go_by_a_clock_that_nobody_sets(tmp_path, monkeypatch):
    found = Limits(ServerLimits(), [ONE], tmp_path)
    found.admit(client(ONE)).release()
    real = time.time
    for jump in (-3_600, 3_600):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        found.admit(client(ONE)).release()
    assert refused(found, client(ONE))[1] <= 60


def test_an_upload_that_no_rate_limits_counts_its_megabytes(tmp_path):
    found = limits(tmp_path, in_flight_mb=1)
    with found.upload(client(ONE)) as arrived:
        arrived(900_000)
        assert "megabytes" in refused(found, client(TWO), 200_000)[0]
        with pytest.raises(ApiError), found.upload(NOBODY) as other:
            other(200_000)
        assert found.in_flight == 1  # the refused request above was not released
    admit(found, client(TWO), 200_000)


@pytest.mark.parametrize(
    "path",
    ["/v1/feedback", "/distill/forget", "/v1/responses/input_tokens", "/v1/chat/completions"],
)
def test_every_upload_counts_in_the_megabytes_in_flight(tmp_path, path):
    """Bodies that come slowly fill the memory, whichever path they are sent to."""
    with LoopbackServer() as teacher:
        raw = settings(teacher.base_url, tmp_path, server={"limits": {"in_flight_mb": 1}})
        head = "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        body = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "%b"}]}' % (
            b"a" * 700_000
        )
        length = f"content-length: {len(body)}\r\n\r\n"
        with ProxyThread(raw) as proxy, Raw(proxy.port) as first:
            first.send((head.format(path) + length).encode() + body[:-1])
            [connection] = wait_until(lambda: [c for c in proxy.connections if c.answering])
            wait_until(lambda: connection._body_bytes == len(body) - 1)
            answer = httpx.post(
                f"{proxy.base_url}/chat/completions",
                content=body,
                headers={"content-type": "application/json"},
            )
            assert answer.status_code == 429, answer.text
            first.send(body[-1:])
            first.read_answer()
            answer = httpx.post(
                f"{proxy.base_url}/chat/completions",
                content=body,
                headers={"content-type": "application/json"},
            )
            assert answer.status_code == 200, answer.text
