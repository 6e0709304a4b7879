"""Keys: which clients may use the proxy."""

from base64 import b64encode

import pytest

from proxy.access.keys import Keys
from proxy.http.errors import ApiError
from store.settings.config import ApiKey

KEYS = Keys(
    [
        ApiKey(key="sk-one", name="one"),
        ApiKey(key="sk-two", name="two", task="triage"),
    ]
)


def with_key(value):
    return [(b"host", b"localhost"), (b"authorization", value)]


def refused(keys, headers):
    with pytest.raises(ApiError) as caught:
        keys.authenticate(headers)
    return caught.value


def test_a_keys_client_has_its_task_and_hash():
    one = KEYS.authenticate(with_key(b"Bearer sk-one"))
    two = KEYS.authenticate(with_key(b"bearer  sk-two "))
    assert (one.task, two.task) == (None, "triage")
    assert one.key_hash != two.key_hash
    assert one.key_hash is not None and len(one.key_hash) == 16 and "sk" not in one.key_hash


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], None),
        (with_key(b""), None),
        (with_key(b"Bearer"), None),
        (with_key(b"Bearer "), None),
        (with_key(b"Basic sk-one"), None),
        (with_key(b"Bearer sk-on"), "invalid_api_key"),
        (with_key(b"Bearer sk-one1"), "invalid_api_key"),
        (with_key(b"Bearer \xff\xfe"), "invalid_api_key"),
    ],
)
def test_unknown_keys_are_refused(headers, code):
    error = refused(KEYS, headers)
    assert (error.status, error.code) == (401, code)
    assert "sk-on" not in error.message


def test_a_browser_may_show_its_key_as_a_password():
    basic = b"Basic " + b64encode(b"anybody:sk-two")
    assert KEYS.authenticate(with_key(basic), browser=True).task == "triage"
    assert refused(KEYS, with_key(basic)).status == 401  # nowhere but on the status pages
    for wrong in (b64encode(b"anybody:sk-three"), b64encode(b"sk-two"), b"%%%"):
        with pytest.raises(ApiError) as caught:
            KEYS.authenticate(with_key(b"Basic " + wrong), browser=True)
        assert caught.value.headers[0][0] == b"www-authenticate"


def test_without_keys_every_program_is_let_in():
    client = Keys([]).authenticate(with_key(b"Bearer anything"))
    assert (client.key_hash, client.task) == (None, None)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"http://localhost:3000", None),
        (b"http://127.0.0.1", None),
        (b"http://[::1]:8080", None),
        (b"https://example.com", 403),
        (b"http://localhost.example.com", 403),
        (b"null", 403),
        (b"http://[", 403),
    ],
)
def test_without_keys_pages_of_other_sites_are_refused(origin, status):
    headers = [(b"origin", origin)]
    if status is None:
        Keys([]).authenticate(headers)
    else:
        assert refused(Keys([]), headers).status == status
    KEYS.authenticate([*headers, *with_key(b"Bearer sk-one")])


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        (b"localhost", True),
        (b"LocalHost:4100", True),
        (b"127.0.0.1:4100", True),
        (b"127.1.2.3", True),
        (b"[::1]:4100", True),
        (b"rebound.example", False),
        (b"localhost.rebound.example", False),
        (b"127.0.0.1.rebound.example", False),
        (b"localhost@rebound.example", False),
        (b"rebound.example@localhost", False),
        (b"localhost:x", False),
        (b"192.168.1.2", False),
        (b"0.0.0.0", False),
        (b"[::", False),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_without_keys_another_host_is_refused(host, ours):
    headers = [(b"host", host)]
    KEYS.check_host(headers)
    Keys([]).check_host([])
    if ours:
        Keys([]).check_host(headers)
    else:
        with pytest.raises(ApiError) as caught:
            Keys([]).check_host([(b"host", b"localhost"), *headers])
        assert (caught.value.status, caught.value.code) == (403, "foreign_host")


def test_a_key_does_what_its_rights_allow():
    keys = Keys([ApiKey(key="sk-op", name="op", may=["operate"]), ApiKey(key="sk", name="app")])
    operator, app = with_key(b"Bearer sk-op"), with_key(b"Bearer sk")
    assert keys.authenticate(operator, needs="operate").name == "op"
    assert keys.authenticate(operator, needs=None).name == "op"
    assert keys.authenticate(app).may == {"use"}
    for headers, needs in ((operator, "use"), (operator, "forget"), (app, "operate")):
        with pytest.raises(ApiError) as caught:
            keys.authenticate(headers, needs=needs)
        assert (caught.value.status, caught.value.code) == (403, "missing_right")
        assert f"`{needs}`" in caught.value.message
    assert Keys([]).authenticate([], needs="forget").name == "local"


def test_the_command_line_of_this_machine_has_all_rights_where_there_are_keys():
    keys = Keys([ApiKey(key="sk", name="app")], operator="of-this-run")
    operator = keys.authenticate(with_key(b"Bearer of-this-run"), needs="forget")
    assert (operator.name, operator.task) == ("local", None)
    assert Keys([], operator="of-this-run").authenticate([]).key_hash is None


def test_a_key_from_a_file_with_a_line_end_is_the_same_key():
    keys = Keys([ApiKey(key="sk-one\n", name="one")])
    assert keys.authenticate(with_key(b"Bearer sk-one")).name == "one"


@pytest.mark.parametrize(
    ("headers", "task"),
    [
        ([(b"x-api-key", b"sk-two")], "triage"),
        ([(b"x-api-key", b" sk-one ")], None),
        # a client that sends both may mean either; of two good ones the bearer token holds
        ([*with_key(b"Bearer of-another-server"), (b"x-api-key", b"sk-two")], "triage"),
        ([*with_key(b"Bearer sk-two"), (b"x-api-key", b"of-another-server")], "triage"),
        ([*with_key(b"Bearer sk-two"), (b"x-api-key", b"sk-one")], "triage"),
        ([*with_key(b"Basic sk-one"), (b"x-api-key", b"sk-two")], "triage"),
    ],
)
def test_anthropics_header_may_bring_the_key(headers, task):
    assert KEYS.authenticate(headers).task == task


@pytest.mark.parametrize("key", [b"", b"sk-on", b"Bearer sk-one", b"\xff"])
def test_unknown_keys_in_anthropics_header_are_refused(key):
    error = refused(KEYS, [(b"x-api-key", key)])
    assert (error.status, error.code) == (401, "invalid_api_key" if key else None)
