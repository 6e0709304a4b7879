"""The effects of the settings of the Responses API."""

from __future__ import annotations

from tests.helpers.effects import Effect, Raw
from tests.helpers.effects_serving import proxied
from tests.helpers.responses_scene import BODY, good, post, publish
from tests.helpers.responses_teacher import echo
from tests.helpers.teacher_server import LoopbackServer


def who_answers_what_is_to_be_kept(raw: Raw) -> str:
    with proxied(raw) as (proxy, teacher), LoopbackServer(good) as student:
        teacher.answer = echo
        publish(proxy, student)
        return post(proxy, BODY).headers["x-understudy-route"]


RESPONSES: dict[str, Effect] = {
    "responses.keep_days": Effect(who_answers_what_is_to_be_kept, (30, "student"), (0, "teacher")),
}
