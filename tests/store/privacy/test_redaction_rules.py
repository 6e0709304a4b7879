"""The ready-made rules: samples that they find, and similar texts that they do not."""

from __future__ import annotations

import pytest

from store.privacy.redaction import Redaction, redaction_of
from store.privacy.rules import READY
from store.privacy.settings import PrivacySettings

FOUND: dict[str, list[str]] = {
    "email": [
        "ada@example.org",
        "ada.lovelace+notes@mail.example.co.uk",
        "ADA@EXAMPLE.ORG",
        "o'brien@example.ie",
        "_a-b@x-y.example",
        "jürgen@bücher.example",
        "用户@例子.公司",
        "1234567@qq.com",
    ],
    "phone": [
        "+49 30 901820",
        "+4930901820",
        "+49 (0)30 901820",
        "+1 (415) 555-2671",
        "+1-415-555-2671",
        "+14155552671",
        "+44 20 7946 0958",
        "+86 138 0013 8000",
        "(415) 555-2671",
        "(415)555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-800-555-0199",
        "030 901820123",
        "0171/1234567",
        "0171 1234567",
        "089-636-48018",
        "01 23 45 67 89",
        "020 7946 0958",
        "07700 900123",
    ],
    "credit_card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "5555 5555 5555 4444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "6011111111111117",
        "6304000000000000",
        "4222222222222",
        "6212345678901232",
    ],
    "iban": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "de89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO93 8601 1117 947",
        "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        "BE68-5390-0754-7034",
    ],
    "ipv4": ["8.8.8.8", "192.168.0.1", "255.255.255.255", "10.0.0.1"],
    "ipv6": [
        "2001:db8::1",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "fe80::1ff:fe23:4567:890a",
        "FD12:3456:789A::",
    ],
    "us_ssn": ["078-05-1120", "219-09-9999", "899-12-3456"],
    "api_key": [
        "sk-proj-" + "aB3" * 12,
        "sk-ant-api03-" + "aB3" * 12,
        "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
        "AKIAIOSFODNN7EXAMPLE",
        "AIza" + "Sy0" * 11 + "AB",
        "ghp_" + "a1" * 18,
        "github_pat_" + "1A" * 20,
        "glpat-" + "a1" * 10,
        "xoxb-" + "123456789012-abcdef",
        "hf_" + "aB1" * 11,
        "npm_" + "a1" * 18,
        "SG." + "a1" * 11 + "." + "b2" * 20,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
        "Bearer 0123456789abcdef0123456789",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nx\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIEow cut off",
    ],
}
SOMETHING_ELSE: dict[str, list[str]] = {
    "email": [
        "user@localhost",
        "@ada",
        "a @ b.com",
        "@types/node",
        "pip install thing@1.2.3",
        "rate is 5@3.50",
        "ada@",
        "@example.org",
    ],
    "phone": [
        "2024-01-02",
        "01.02.2024",
        "01/02/2024 10:30",
        "2024-01-02 10:20:30",
        "+2024-01-02 10:20",
        "order 12345678",
        "1700000000",
        "1700000000000",
        "3.14159265358979",
        "978-3-16-148410-0",
        "550e8400-e29b-41d4-a716-446655440000",
        "192.168.100.1000",
        "10.0.0.1",
        "call 112",
        "0.123456789",
        "007",
        "1,000,000",
        "1 000 000 000",
        "200 300 4000",
        "x+12345678",
        "5+12345678",
        "0001-0002-0003",
        "A0171 1234567",
    ],
    "credit_card": [
        "4111111111111112",
        "1234567890123456",
        "1700000000000",
        "1700000000000000000",
        "0.4111111111111111",
        "12345",
        "00000000000000000000",
        "a4111111111111111",
        "411111111111111100000000",
    ],
    "iban": [
        "DE89370400440532013001",
        "DE8937040044053201300",
        "AB12 is the code of the thing",
        "XX89370400440532013000",
        "in 2024 we had 12 of them and more",
        "DE893704004405320130001",
    ],
    "ipv4": [
        "256.1.1.1",
        "1.2.3",
        "1.2.3.4.5",
        "v1.2.3.4",
        "1.2.3.4a",
        "01.02.03.04",
        "a1.2.3.4",
    ],
    "ipv6": [
        "12:34:56",
        "10:20",
        "std::vector",
        "a::b",
        "x[1::2]",
        "x[::2]",
        "Foo::Bar::Baz",
        "2024:10:20",
        "fade:in:out",
        "2001:db8:1",
    ],
    "us_ssn": ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000", "1-2-3"],
    "api_key": [
        "sk-learn",
        "sk-estimator-documentation-link",
        "the bearer of this letter",
        "task-1234567890123456789012345",
        "AKIA",
        "eyJ",
        "hf_transformers",
        "BEGIN PRIVATE KEY",
    ],
}
AROUND = (
    "",
    "{}",
    "<{}>",
    "({})",
    "'{}'",
    '"{}"',
    "{}.",
    "{},",
    "a: {} b",
    "\n{}\n",
    "是{}。",
    "é {} é",
)


def rules(*names: str) -> Redaction:
    found = redaction_of(PrivacySettings.model_validate({"redact": list(names)}))
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in FOUND.items() for t in texts])
def test_each_sample_is_found_by_its_rule(name: str, text: str) -> None:
    redaction = rules(name)
    placeholder = f"<{name.upper()}>"
    for around in AROUND[1:]:
        if name == "email" and "是" in around:
            continue  # a letter of any script belongs to the address
        if text.endswith("cut off") and not around.endswith("}"):
            continue  # a key without its end goes on to the end of the text
        assert redaction.text(around.format(text)) == around.format(placeholder), around


@pytest.mark.parametrize(
    ("name", "text"), [(n, t) for n, texts in SOMETHING_ELSE.items() for t in texts]
)
def test_similar_texts_are_not_found(name: str, text: str) -> None:
    redaction = rules(name)
    for around in AROUND[1:]:
        if not (name == "email" and "是" in around):
            assert redaction.text(around.format(text)) == around.format(text), around


def test_each_rule_has_samples_of_both_kinds() -> None:
    assert READY.keys() == FOUND.keys() == SOMETHING_ELSE.keys()


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("4111 1111 1111 1111 123", "<CREDIT_CARD> 123"),
        ("4111111111111111 12/27", "<CREDIT_CARD> 12/27"),
        ("1234 4111 1111 1111 1111", "1234 <CREDIT_CARD>"),
        ("4111111111111112 4111111111111111", "4111111111111112 <CREDIT_CARD>"),
        ("DE89 3704 0044 0532 0130 00 BIC COBADEFF", "<IBAN> BIC COBADEFF"),
        ("BE68 5390 0754 7034 BANK", "<IBAN> BANK"),
        ("8.8.8.8:53, 10.0.0.0/8, 10.0.0.1-10.0.0.9", "<IPV4>:53, <IPV4>/8, <IPV4>-<IPV4>"),
        ("写信ada@example.org。", "<EMAIL>。"),
        ("a@b.org;c@d.org, <e@f.org>", "<EMAIL>;<EMAIL>, <<EMAIL>>"),
        ("mailto:a@b.org?subject=x", "mailto:<EMAIL>?subject=x"),
        ("https://ada@example.org/x", "https://<EMAIL>/x"),
        ("tel:+4930901820;ext=5", "tel:<PHONE>;ext=5"),
        ("fe80::1%eth0", "<IPV6>%eth0"),
        ("ada@example.org" * 2, "<EMAIL>@example.org"),
    ],
)
def test_text_beside_a_match_stays(text: str, redacted: str) -> None:
    assert rules(*READY).text(text) == redacted


def test_ordinary_text_stays_as_it_is() -> None:
    text = (
        "On 2024-01-02 at 10:20:30 order 12345678 (v1.2.3, build 20240102.1) left for $1,299.00. "
        "See RFC 2616, section 14.9; ISBN 978-3-16-148410-0; ratio 0.123456789; 1e-9; #4711. "
        "def f(x): return x[1::2]  # std::vector<int> a::b\n"
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8, id 550e8400-e29b-41d4-a716-446655440000"
    )
    assert rules(*READY).text(text) is text
