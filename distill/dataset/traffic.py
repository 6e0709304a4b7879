"""The shapes of a task's recent requests: which prompts vary, and which shapes count now.

The newest requests decide, answered by teacher or student. So an edited prompt counts soon, however
many traces the old one has, and a prompt that a student serves keeps counting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from distill.dataset.exchange import shape_body
from distill.dataset.templates import SeenShape, recognise
from store.chat.prompt_templates import template_of, values
from store.chat.shape import rest_of_shape, system_text
from store.database.traces import FingerprintTraffic
from store.records import LoggedRequest, PromptTemplate

MIN_SHARE = 0.1  # of the newest requests, for a shape that counts; the commonest always does
NEWEST = 1_000  # requests that decide what counts
REMEMBERED = 20_000  # requests in which templates are looked for
MAX_SHAPES = 1_000  # fingerprints among them that are looked at: no fewer than NEWEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The name that a request is certified under, and the input in its system prompt."""

    name: str  # its fingerprint, or the id of its prompt's template
    values: list[str] = field(default_factory=list)  # in the template's holes


class Traffic:
    """A task's recent traffic by shape. Without any, each fingerprint is a shape of its own."""

    def __init__(self, seen: Iterable[SeenShape] = ()) -> None:
        self._seen = list(seen)
        self.templates: list[PromptTemplate] = recognise(self._seen)
        self._shapes: dict[str, Shape] = {}  # by fingerprint
        for one in self._seen:
            self._shapes[one.fingerprint] = _shape(
                one.fingerprint, one.text, _first(self.templates, one)
            )
        self.recent: Counter[str] = Counter()  # of the newest requests, by the shape's name
        for one in self._seen:
            self.recent[self._shapes[one.fingerprint].name] += one.recent

    def shape_of(self, fingerprint: str, request: LoggedRequest) -> Shape:
        """The shape of a request with this fingerprint."""
        shape = self._shapes.get(fingerprint)
        if shape is None:
            body = shape_body(request)
            template = template_of(self.templates, body)
            shape = _shape(fingerprint, system_text(body["messages"]), template)
            self._shapes[fingerprint] = shape
        return shape

    def counting(self, learnable: Mapping[str, int]) -> set[str]:
        """Which shapes count, of those with traces to learn from (how many, by name).

        Those with a tenth of the newest requests or more, and the commonest. Without recent
        requests of any of them, the traces take the requests' place.
        """
        recent = {name: self.recent[name] for name in learnable if self.recent[name]}
        if not recent:
            return _large(learnable, sum(learnable.values()))
        return _large(recent, self.recent.total())

    def requests_beyond(self, shapes: Collection[str]) -> int:
        """The remembered requests that are known to be of other shapes than these."""
        known = ((self._shapes[one.fingerprint].name, one.requests) for one in self._seen)
        return sum(requests for name, requests in known if name not in shapes)

    def fingerprints(self) -> dict[str, str]:
        """The fingerprints in the recent traffic whose shape counts, with the name of the shape."""
        names = _large(self.recent, self.recent.total())
        known = {s.fingerprint: self._shapes[s.fingerprint].name for s in self._seen}
        return {fingerprint: name for fingerprint, name in known.items() if name in names}


def seen_shape(traffic: FingerprintTraffic) -> SeenShape:
    """The recent requests of a fingerprint as templates are recognised from them."""
    body = shape_body(traffic.request)
    return SeenShape(
        fingerprint=traffic.fingerprint,
        text=system_text(body["messages"]),
        rest=rest_of_shape(body),
        requests=traffic.requests,
        recent=traffic.recent,
        first_at=traffic.first_at,
        last_at=traffic.last_at,
    )


def _large(counts: Mapping[str, int], total: int) -> set[str]:
    if not counts:
        return set()
    top = max(counts, key=lambda name: counts[name])
    return {top} | {name for name, count in counts.items() if count >= MIN_SHARE * total}


def _first(templates: Sequence[PromptTemplate], seen: SeenShape) -> PromptTemplate | None:
    return next(
        (t for t in templates if t.shape == seen.rest and values(t, seen.text) is not None), None
    )


def _shape(fingerprint: str, text: str, template: PromptTemplate | None) -> Shape:
    if template is None:
        return Shape(name=fingerprint)
    return Shape(name=template.template_id, values=values(template, text) or [])
