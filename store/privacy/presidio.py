"""Microsoft's Presidio as a finder for the redaction.

https://data-privacy-stack.github.io/presidio/
An extra: `pip install 'understudy-proxy[presidio]'`.
Without a spaCy model it finds patterns; with one, names and places too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from store.errors import ConfigError

if TYPE_CHECKING:
    from store.privacy.settings import PresidioSettings


class PresidioFinder:
    """Finds entities in a text."""

    def __init__(self, settings: PresidioSettings, placeholders: Sequence[str]) -> None:
        """Loads Presidio, which takes seconds. Raises ConfigError on unusable settings."""
        self._settings = settings
        self._engine = _engine(settings)
        self._lock = Lock()
        self._placeholder = re.compile("|".join(map(re.escape, placeholders)))

    def __call__(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Start and end in characters, and the placeholder; nothing within a placeholder."""
        settings = self._settings
        with self._lock:
            results = self._engine.analyze(
                text,
                language=settings.language,
                entities=settings.entities,
                score_threshold=settings.score,
            )
        placeholders_found = [match.span() for match in self._placeholder.finditer(text)]
        for result in results:
            if not any(
                start < result.end and result.start < end for start, end in placeholders_found
            ):
                yield result.start, result.end, settings.placeholders[result.entity_type]


def _engine(settings: PresidioSettings) -> Any:
    _keep_off_the_network()
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # noqa: PLC0415 - an extra
    from presidio_analyzer.nlp_engine import NlpEngineProvider  # noqa: PLC0415

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    language = settings.language
    if settings.model is not None:
        _must_be_installed(settings.model)  # or spaCy would download it
    names = {"lang_code": language, "model_name": settings.model or ""}
    kind = "spacy" if settings.model is not None else "no_op"
    nlp = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": kind, "models": [names]}
    ).create_engine()
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language], nlp_engine=nlp)
    engine = AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=[language])
    unknown = set(settings.entities) - set(engine.get_supported_entities(language))
    if unknown:
        known = ", ".join(sorted(engine.get_supported_entities(language)))
        hint = "" if settings.model else "; names and places need privacy.presidio.model"
        raise ConfigError(
            f"privacy.presidio.entities: Presidio finds no {', '.join(sorted(unknown))}, "
            f"but {known}{hint}"
        )
    return engine


def _keep_off_the_network() -> None:
    """Checks e-mail domains by the installed list of top-level domains.

    Presidio asks `tldextract`, which would otherwise fetch the newest list at the first address.
    """
    from tldextract import TLDExtract, tldextract  # noqa: PLC0415 - comes with Presidio

    tldextract.TLD_EXTRACTOR = TLDExtract(suffix_list_urls=(), cache_dir=None)


def _must_be_installed(model: str) -> None:
    from spacy.util import is_package  # noqa: PLC0415 - comes with Presidio

    if not (is_package(model) or Path(model).is_dir()):
        raise ConfigError(
            f"privacy.presidio.model {model} is not installed: python -m spacy download {model}"
        )
