"""The compiled redaction rules of a config, as RE2 expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from store.privacy.rules import READY, Check, Span

if TYPE_CHECKING:
    from store.privacy.settings import RedactRule

_LOOK_AT_CLOCK = 64  # matches
_ANCHOR = re.compile(r"[\^$]|\\[AzZ]")  # or an escape that looks like one


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that is ready to be used."""

    name: str
    placeholder: str
    pattern: str
    regex: Any  # re2 does not export its type
    check: Check | None
    whole: bool  # whether the pattern may match the beginning or the end of a text

    def spans(self, data: bytes, until: float) -> Iterator[Span]:
        """The matches in UTF-8, from left to right. Raises TimeoutError at `until`."""
        at = number = 0
        while (match := self.regex.search(data, at)) is not None:
            start, end = match.span()
            span: Span | None = (start, end)
            if end > start and self.check is not None:
                span = self.check(data, start, end)
            if span is None or end == start:
                at = start + 1
                while at < len(data) and data[at] & 0xC0 == 0x80:  # within a character
                    at += 1
            else:
                yield span
                at = span[1]
            if at > len(data):
                return
            number += 1
            if number % _LOOK_AT_CLOCK == 0 and monotonic() > until:
                raise TimeoutError


def rules_of(rules: Sequence[RedactRule]) -> list[Rule]:
    """The rules, ready to be used. Raises ValueError, which names the rule, when one cannot be."""
    return [_rule(rule) for rule in rules]


def check_rules(rules: Sequence[RedactRule], placeholders: Sequence[str]) -> None:
    """Raises ValueError, which names the rule, when rules cannot be used."""
    ready = rules_of(rules)
    compiled(any_of(ready))  # all of them in one may be too large
    for rule in ready:
        if rule.regex.fullmatch(b"") is not None:
            raise ValueError(f"privacy.redact.{rule.name}: its pattern also finds the empty text")
        for placeholder in placeholders:
            if next(rule.spans(placeholder.encode(), inf), None):
                raise ValueError(
                    f"privacy.redact.{rule.name}: it finds the placeholder {placeholder}; "
                    "set another `replace`"
                )


def _rule(rule: RedactRule) -> Rule:
    known = READY.get(rule.name)
    if rule.pattern is not None:
        known, pattern = None, rule.pattern
    elif known is not None:
        pattern = known.pattern
    else:
        raise ValueError(
            f"privacy.redact.{rule.name}: it needs a pattern; without one there are "
            + ", ".join(sorted(READY))
        )
    try:
        regex = compiled(pattern)
    except ValueError as error:
        raise ValueError(f"privacy.redact.{rule.name}: {error}") from None
    whole = known is None and _ANCHOR.search(pattern) is not None
    check = known.check if known is not None else None
    if known is not None and known.load is not None:
        known.load()
    return Rule(rule.name, rule.placeholder, pattern, regex, check, whole)


def any_of(rules: Sequence[Rule]) -> str:
    """A pattern that finds something wherever one of the rules may."""
    return "|".join(f"(?:{rule.pattern})" for rule in rules)


def compiled(pattern: str) -> Any:
    """The regular expression. Raises ValueError."""
    import re2  # noqa: PLC0415 - only where something is redacted

    options = re2.Options()
    options.log_errors = False  # reported as a fault of the config instead
    options.never_capture = True  # groups would cost a second search, and are not used
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        message = error.args[0] if error.args else b""
        why = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
        raise ValueError(f"no regular expression of RE2 ({why})") from None
