"""Finds answers in which a teacher refuses in words, instead of doing what the task asks.

A refusal is no answer to learn: the next teacher, or the same one tomorrow, may well answer. Words
alone do not tell: an apology may be a customer-service reply, and a prompt may ask for a set
phrase. So an answer counts as a refusal only if all of these hold:

- It reads like one: it begins with an apology or with "as an AI", and says that it cannot; or it is
  the notice of a content filter. A label such as `refuse` does not.
- The prompt's other answers are of another kind: at least MIN_PLAIN of them are JSON or one short
  line, that is, no prose.
- It is rare: at most MAX_SHARE of the prompt's answers read so.
- The prompt does not say it: its words are not in a system prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from distill.dataset.texts import is_short, parsed
from store.chat.normal_form import normal_text

MIN_PLAIN = 0.95  # of the answers that do not read like refusals
MAX_SHARE = 0.2  # of a prompt's answers
MAX_CHARS = 1_000  # a refusal is short; what is longer says something

_SORRY = (
    r"(?:i'?m (?:very |so |really |truly )?sorry|i am (?:very |so )?sorry|sorry|apologies"
    r"|my apologies|i apologi[sz]e|unfortunately|as an? (?:ai|language model)\b.{0,40}"
    r"|es tut mir (?:sehr )?leid|tut mir leid|entschuldigung|leider"
    r"|(?:je suis )?désolée?|je m'excuse|malheureusement"
    r"|lo siento|lo lamento|perdón|lamentablemente|mi dispiace|spiacente|purtroppo"
    r"|desculpe|sinto muito|lamento|infelizmente|het spijt me|sorry|helaas"
    r"|przepraszam|przykro mi|niestety|извините|простите|к сожалению|мне жаль"
    r"|抱歉|很抱歉|对不起|對不起|申し訳|すみません|죄송)"
)
_CANNOT = (
    r"(?:can'?t|cannot|can not|won'?t|unable to|not able to|not comfortable|must decline"
    r"|(?:kann|darf|werde|können)\b.{0,60}\b(?:nicht|keine?n?)\b|nicht (?:in der lage|möglich)"
    r"|ne (?:peux|puis|pouvons) pas|ne (?:peux|puis) ni|no puedo|no podemos|no me es posible"
    r"|non posso|non sono in grado|não posso|não consigo|nie mogę|kan (?:ik )?.{0,40}niet"
    r"|не могу|не можем|不能|无法|無法|できません|出来ません|いたしかねます|없습니다|못합니다)"
)
_BARE = re.compile(
    r"i (?:can'?t|cannot|won'?t|can not|am unable to|am not able to|'?m unable to) "
    r"(?:assist|help|comply|provide|fulfil|do|answer|engage|continue|create|generate|support)\b"
)
_REFUSAL = re.compile(rf"{_SORRY}.{{0,200}}?{_CANNOT}", re.DOTALL)
_FILTER = re.compile(
    r"(?:the|this|your) (?:response|content|prompt|request|output) (?:was|has been|is) "
    r"(?:filtered|blocked|flagged|removed)"
)


def reads_like_a_refusal(text: str) -> bool:
    """Whether the text by itself could be a refusal."""
    plain = normal_text(text).casefold().replace("\u2019", "'")
    if len(plain) > MAX_CHARS or isinstance(parsed(plain), dict | list):
        return False
    return any(rule.match(plain) for rule in (_REFUSAL, _BARE, _FILTER))


def refusals(answers: Sequence[str], prompts: Sequence[str]) -> set[str]:
    """Which of these answers to one prompt are refusals.

    `prompts`: the system prompt's texts.
    """
    reading = [text for text in answers if reads_like_a_refusal(text)]
    others = [text for text in answers if not reads_like_a_refusal(text)]
    plain = sum(_is_plain(text) for text in others)
    if len(reading) > MAX_SHARE * len(answers) or plain < MIN_PLAIN * len(others):
        return set()
    said = " ".join(prompts).casefold()
    return {text for text in reading if normal_text(text).casefold().rstrip(".!") not in said}


def _is_plain(text: str) -> bool:
    return isinstance(parsed(text), dict | list) or is_short(normal_text(text))
