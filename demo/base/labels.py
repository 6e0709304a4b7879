"""Families that choose a label: by topic, tone, haste, or by a rule in the prompt."""

from __future__ import annotations

import random

from demo.base import lexicon, sentences
from demo.base.draw import GeneratedExample, chance, invented, person, pick
from demo.base.extraction import as_json
from demo.base.sentences import dress

# The names that a prompt gives to "for", "against" and "even".
TONES = (
    ("good", "bad", "so-so"),
    ("plus", "minus", "zero"),
    ("happy", "unhappy", "calm"),
    ("up", "down", "flat"),
    ("praise", "complaint", "remark"),
)

# The names that a prompt gives to "now", "soon" and "later".
SCALES = (
    ("now", "soon", "later"),
    ("hot", "warm", "cold"),
    ("first", "next", "last"),
    ("A", "B", "C"),
    ("1", "2", "3"),
    ("red", "yellow", "green"),
)


def topic(rng: random.Random) -> GeneratedExample:
    """Which of the topics offered, or of those known."""
    offered = rng.sample(list(lexicon.TOPICS), rng.randint(2, 5))
    name, text = sentences.topic(rng, pick(rng, offered))
    if chance(rng, 0.4):
        text = f"{text} {sentences.topic(rng, name)[1]}"
    text = dress(rng, text, after=0.1)
    names, form = ", ".join(offered), rng.randrange(4)
    if form == 0:
        return GeneratedExample(f"Classify the topic: {names}.", text, name)
    if form == 1:
        key = pick(rng, ("topic", "label", "class", "type", "kind"))
        return GeneratedExample(f"Return JSON with {key} ({names}).", text, as_json({key: name}))
    if form == 2:
        return GeneratedExample(None, f"{text}\nTopic ({names})?", name)
    return GeneratedExample("What is this about?", text, name)


def tone(rng: random.Random) -> GeneratedExample:
    """The sentiment of a text."""
    names = dict(zip(("for", "against", "even"), pick(rng, TONES), strict=True))
    kind = pick(rng, tuple(names))
    text = sentences.tone(rng, kind)
    if chance(rng, 0.5):
        text += " " + sentences.tone(rng, kind)
    text = dress(rng, text, after=0.1)
    good, bad, even = names.values()
    if chance(rng, 0.5):
        return GeneratedExample(f"Tone: {good}, {bad} or {even}?", text, names[kind])
    key = pick(rng, ("tone", "mood", "opinion", "rating"))
    wording = f"Return JSON with {key} ({good}, {bad}, {even})."
    return GeneratedExample(wording, text, as_json({key: names[kind]}))


def topic_and_tone(rng: random.Random) -> GeneratedExample:
    """Two labels in one JSON object."""
    names = dict(zip(("for", "against", "even"), pick(rng, TONES), strict=True))
    kind = pick(rng, tuple(names))
    offered = rng.sample(list(lexicon.TOPICS), rng.randint(2, 4))
    name, about = sentences.topic(rng, pick(rng, offered))
    parts = [about, sentences.tone(rng, kind)]
    rng.shuffle(parts)
    first, second = pick(rng, ("topic", "class", "area")), pick(rng, ("tone", "mood", "opinion"))
    wording = (
        f"Return JSON with {first} ({', '.join(offered)}) "
        f"and {second} ({', '.join(names.values())})."
    )
    return GeneratedExample(wording, " ".join(parts), as_json({first: name, second: names[kind]}))


def haste(rng: random.Random) -> GeneratedExample:
    """The urgency of a text, alone or with its topic."""
    names = dict(zip(sentences.SOON, pick(rng, SCALES), strict=True))
    kind = pick(rng, tuple(names))
    name, text = sentences.soon(rng, kind)
    text = dress(rng, text)
    scale = ", ".join(names.values())
    if chance(rng, 0.4):
        return GeneratedExample(f"When: {scale}?", text, names[kind])
    key = pick(rng, ("when", "step", "queue", "slot"))
    if chance(rng, 0.4):
        wording = f"Return JSON with {key} ({scale})."
        return GeneratedExample(wording, text, as_json({key: names[kind]}))
    offered = list({name: None} | dict.fromkeys(rng.sample(list(lexicon.TOPICS), 2)))
    rng.shuffle(offered)
    about = pick(rng, ("topic", "class", "area"))
    wording = f"Return JSON with {about} ({', '.join(offered)}) and {key} ({scale})."
    return GeneratedExample(wording, text, as_json({about: name, key: names[kind]}))


def rule(rng: random.Random) -> GeneratedExample:
    """Invented labels, defined in the prompt by cue words."""
    names = [invented(rng, False) for _ in range(rng.randint(2, 3))]
    cues = (*lexicon.THINGS, *lexicon.COLOURS, *lexicon.CITIES)
    rules = {name: rng.sample(cues, rng.randint(1, 3)) for name in names}
    name = pick(rng, names)
    cue = pick(rng, rules[name])
    texts = (
        f"I saw the {cue} {pick(rng, lexicon.ADVERBS)}.",
        f"{person(rng)} {pick(rng, lexicon.VERBS)} {cue}.",
        f"{cue.capitalize()} {pick(rng, lexicon.ADVERBS)}, {pick(rng, lexicon.ADVERBS)}.",
    )
    text = pick(rng, texts)
    if chance(rng, 0.4):
        text = f"{pick(rng, lexicon.FILLERS)} {text}"
    defined = "; ".join(f"{', '.join(rules[label])} -> {label}" for label in rules)
    return GeneratedExample(f"Rules: {defined}.", text, name)
