"""A validator for a client's JSON schema, which fetches nothing and checks formats.

A module of its own, because importing jsonschema takes a fifth of a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry

from store.jsontext import JsonObject

# those that OpenAI's strict schemas know: https://platform.openai.com/docs/guides/structured-outputs
# Any other is a remark, as the specification has it.
_THEIRS = ("date", "email", "ipv4", "ipv6", "uuid")
_OFFSET = r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_TIME = rf"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?{_OFFSET}"
_OURS = {
    "time": re.compile(_TIME),  # RFC 3339
    "date-time": re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt ]{_TIME}"),
    "duration": re.compile(  # RFC 3339, appendix A
        r"P(?!$)(?:[0-9]+W|(?:[0-9]+Y)?(?:[0-9]+M)?(?:[0-9]+D)?"
        r"(?:T(?!$)(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+S)?)?)"
    ),
    "hostname": re.compile(  # RFC 1123
        r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
        r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
    ),
}


def validator(schema: JsonObject) -> Validator:
    """Checks values by the draft that the schema names, 2020-12 without one.

    Raises an error of jsonschema's for an invalid schema. A reference to anything outside of the
    schema is an error when a value needs it.
    """
    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    return kind(schema, registry=Registry(), format_checker=_formats())


def _formats() -> FormatChecker:
    checker = FormatChecker(_THEIRS)
    for name, pattern in _OURS.items():
        checker.checks(name, raises=ValueError)(_is(name, pattern))
    return checker


def _is(name: str, pattern: re.Pattern[str]) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if not isinstance(value, str):
            return True
        if name == "date-time":
            date.fromisoformat(value[:10])
        return pattern.fullmatch(value) is not None

    return check
