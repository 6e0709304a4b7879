"""The ready-made rules: patterns of addresses, numbers and keys, and checks of their matches.

Patterns are in RE2's syntax: no look-around, no back-references, time linear in the text. A check
decides what a pattern cannot: the check digits of a card or an account, the characters around a
number. Matches that a check may refuse are bounded in length, so that searching again one character
later is cheap. Patterns and checks work on UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

Span = tuple[int, int]  # from, to, in bytes
# (text, start, end) of a match → the part to redact; None: not what the rule is for
Check = Callable[[bytes, int, int], Span | None]


@dataclass(frozen=True, slots=True)
class Ready:
    """One rule."""

    pattern: str
    check: Check | None = None
    load: Callable[[], object] | None = (
        None  # slow imports of the check, done when the rule is compiled
    )


_SPACES = b" -"
_MIN_CARD = 13  # digits
_DIGIT = re.compile(rb"[0-9]")
_WORD = re.compile(rb"[0-9A-Za-z_]")
_GROUPS = re.compile(rb"([^0-9]*)([0-9]+)")
_LAST_GROUP = re.compile(rb"[ -][0-9]+\Z")
_A_DAY = re.compile(rb"\+(?:19|20)[0-9]{2}([-/.])[0-9]{2}\1[0-9]{2}")


def _card(data: bytes, start: int, end: int) -> Span | None:
    """Cards: the check digit of ISO/IEC 7812-1. A group behind it may be the date or the code."""
    if not _begins(data, start):
        return None
    from stdnum import luhn  # noqa: PLC0415 - only where it is used

    while not luhn.is_valid(data[start:end].translate(None, _SPACES).decode("ascii")):
        last = _LAST_GROUP.search(data, start, end)
        if last is None or len(_DIGIT.findall(data, start, last.start())) < _MIN_CARD:
            return None
        end = last.start()
    return start, end


def _iban(data: bytes, start: int, end: int) -> Span | None:
    """Accounts: as long as their country's are, with the check digits of ISO 7064 mod 97-10."""
    length = _iban_length(data[start : start + 2].decode("ascii").upper())
    characters = bytearray()
    at = start
    while at < end and len(characters) < length:
        if data[at] not in _SPACES:
            characters.append(data[at])
        at += 1
    if not length or len(characters) < length or _WORD.match(data, at):
        return None
    from stdnum.iso7064 import mod_97_10  # noqa: PLC0415 - only where it is used

    account = characters.decode("ascii").upper()
    return (start, at) if mod_97_10.is_valid(account[4:] + account[:4]) else None


@lru_cache(maxsize=26 * 26)
def _iban_length(country: str) -> int:
    """Characters of a country's account numbers; 0 when it has none.

    From python-stdnum's copy of the registry of ISO 13616, which takes 50 ms to load.
    """
    from stdnum import numdb  # noqa: PLC0415 - only where it is used

    ((_, facts), *_) = numdb.get("iban").info(country)
    parts = re.findall(r"[0-9]+", facts.get("bban", ""))  # such as 8!n10!n
    return 4 + sum(map(int, parts)) if parts else 0


def _phone(data: bytes, start: int, end: int) -> Span | None:
    """Telephones: 7 to 15 digits (E.164) that are no date and no part of a longer number.

    Not by `phonenumbers`: it takes 17 µs for what this says in 1 (bench/redaction.py), knows
    numbers without a country code only when told the country, and refuses ranges that its tables
    do not have yet.
    """
    while data[end - 1] not in b"0123456789":
        end -= 1
    text = data[start:end]
    count = len(_DIGIT.findall(text))
    if not 7 <= count <= 15 or not (_begins(data, start) and _ends(data, end)):
        return None
    if text.startswith(b"+"):
        return None if _A_DAY.match(text) else (start, end)
    if not text.startswith(b"0"):  # of North America: the pattern is specific enough
        return start, end
    groups = _GROUPS.findall(text)
    between = {space for space, _ in groups[2:]}
    whole = all(len(digits) > 1 for _, digits in groups[1:])
    return (start, end) if count >= 9 and len(between) <= 1 and whole else None


def _ipv4(data: bytes, start: int, end: int) -> Span | None:
    """Four numbers that are not a part of a longer row, nor a version's."""
    alone = _begins(data, start, b".") and _ends(data, end, b".")
    return (start, end) if alone and data[max(0, start - 1) : start] not in (b"v", b"V") else None


def _ipv6(data: bytes, start: int, end: int) -> Span | None:
    """Addresses that the standard library accepts."""
    from ipaddress import AddressValueError, IPv6Address  # noqa: PLC0415 - only where it is used

    text = data[start:end]
    if text.endswith(b":") and not text.endswith(b"::"):
        text = text[:-1]
    try:
        IPv6Address(text.decode("ascii"))
    except AddressValueError:
        return None
    return start, start + len(text)


def _key(data: bytes, start: int, end: int) -> Span | None:
    """Keys have digits in them; names of things with the same beginning mostly have not."""
    text = data[start:end]
    return (start, end) if text.startswith(b"-----") or _DIGIT.search(text) else None


def _begins(data: bytes, start: int, joints: bytes = b".-/") -> bool:
    """Whether a number begins there: no letter or digit touches it, nor `7.` or `7-`."""
    if not start:
        return True
    if _WORD.match(data, start - 1):
        return False
    return start < 2 or data[start - 1] not in joints or not _DIGIT.match(data, start - 2)


def _ends(data: bytes, end: int, joints: bytes = b".-/") -> bool:
    """Whether a number ends there: no letter or digit touches it, nor `.7` or `-7`."""
    if end >= len(data):
        return True
    return not _WORD.match(data, end) and not (
        data[end] in joints and _DIGIT.match(data, end + 1) is not None
    )


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_KEYS = (
    r"sk-[A-Za-z0-9_-]{20,400}",  # OpenAI, Anthropic and those that do as they do
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"(?:AKIA|ASIA)[0-9A-Z]{16}\b",  # AWS
    r"AIza[0-9A-Za-z_-]{35}",  # Google
    r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"glpat-[A-Za-z0-9_-]{20,}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,400}",  # Slack
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{50,}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JSON web tokens
)

READY: dict[str, Ready] = {
    # RFC 5322 in its everyday part, with letters of any script
    "email": Ready(
        r"[\p{L}\p{N}_+][\p{L}\p{N}_.%+'~-]*@[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?"
        r"(?:\.[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?)*\.\p{L}{2,}"
    ),
    # +49 30 901820 · 030 901820, 0171/1234567 · (415) 555-2671, 1-415-555-2671
    "phone": Ready(
        r"\+[1-9](?:[ ().\-/]{0,3}\d){6,14}"
        r"|\b0[1-9]\d{0,4}[ \-/.]\d(?:[ \-/.]?\d){5,12}"
        r"|(?:\b1[ .\-])?(?:\([2-9]\d\d\)[ \-]?|\b[2-9]\d\d[.\-])\d{3}[ .\-]\d{4}",
        _phone,
    ),
    "credit_card": Ready(
        r"\b(?:[2-6]\d{3}(?:[ -]?\d{4}){3}(?:[ -]?\d{1,3})?|3\d{3}[ -]?\d{6}[ -]?\d{4,5}"
        r"|[456]\d{12,18})\b",
        _card,
    ),
    "iban": Ready(
        r"(?i)\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}", _iban, partial(_iban_length, "DE")
    ),
    "ipv4": Ready(rf"\b{_OCTET}(?:\.{_OCTET}){{3}}\b", _ipv4),
    # addresses that are given to machines begin so; others are written in programs for other things
    "ipv6": Ready(
        r"\b[23fF][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}(?:[0-9A-Fa-f]{1,4}\b)?", _ipv6
    ),
    "us_ssn": Ready(
        r"\b(?:00[1-9]|0[1-9]\d|[1-578]\d\d|6[0-57-9]\d|66[0-57-9])-(?:0[1-9]|[1-9]\d)-"
        r"(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})\b"
    ),
    "api_key": Ready(
        rf"\b(?:{'|'.join(_KEYS)})"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)"
        r"|\b(?i:bearer) [A-Za-z0-9._~+/-]{19,}[A-Za-z0-9_~-]=*",
        _key,
    ),
}
