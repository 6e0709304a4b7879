"""Privacy settings: clients that opt out, and the redaction."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from store.distribution import install_hint
from store.records import Api
from store.settings_model import Settings

# Printable ASCII that JSON does not escape, so that a placeholder is found in any text.
PLACEHOLDER = r"^ *[!#-\[\]-~][ !#-\[\]-~]*$"
Entity = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class RedactRule(Settings):
    """One regular expression and its placeholder."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    pattern: str | None = Field(default=None, min_length=1, description="None: a ready-made one")
    replace: str | None = Field(
        default=None, min_length=3, pattern=PLACEHOLDER, description="None: <NAME>"
    )

    @property
    def placeholder(self) -> str:
        """The text that replaces a match."""
        return self.replace if self.replace is not None else f"<{self.name.upper()}>"


class PresidioSettings(Settings):
    """Microsoft's Presidio, which finds names and places too when it has a model."""

    language: str = Field(default="en", min_length=2)
    model: str | None = Field(default=None, min_length=1, description="None: patterns alone")
    entities: list[Entity] = Field(min_length=1)
    score: float = Field(default=0.5, ge=0, le=1)

    @property
    def placeholders(self) -> dict[str, str]:
        """The placeholder of each entity."""
        return {entity: f"<{entity}>" for entity in self.entities}


class PrivacySettings(Settings):
    """Which content is not kept."""

    store_false: list[Api] = Field(default_factory=lambda: list[Api](["chat_completions"]))
    redact: list[RedactRule] = Field(default_factory=list)
    presidio: PresidioSettings | None = None

    @property
    def redacts(self) -> bool:
        """Whether anything is redacted."""
        return bool(self.redact) or self.presidio is not None

    @property
    def placeholders(self) -> tuple[str, ...]:
        """All placeholders, each once."""
        entities = self.presidio.placeholders.values() if self.presidio else ()
        return tuple(dict.fromkeys([*(rule.placeholder for rule in self.redact), *entities]))

    @field_validator("redact", mode="before")
    @classmethod
    def _a_name_is_a_rule(cls, rules: Any) -> Any:
        """`- email` is short for `- name: email`."""
        if not isinstance(rules, list):
            return rules
        return [{"name": rule} if isinstance(rule, str) else rule for rule in rules]

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        names = [rule.name for rule in self.redact]
        if len(set(names)) < len(names):
            raise ValueError("privacy.redact: two rules have the same name")
        if self.redact:
            from store.privacy.regex import check_rules  # noqa: PLC0415 - loads RE2, only where it is used

            check_rules(self.redact, self.placeholders)
        if self.presidio is not None and find_spec("presidio_analyzer") is None:
            raise ValueError(f"privacy.presidio needs {install_hint('presidio')}")
        return self
