"""The stand-in teacher: answers the demo's tasks by rules over their text, without a key.

    python -m demo.teacher --port 4200 --latency-ms 300

It also answers the two structured calls of distilling: `TaskPolicy` and `SyntheticInputs`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal

from demo.tasks.tasks import TASKS
from demo.teacher.structured import Writer, structured_call
from demo.teacher.wire import Refusal, Reply, TeacherServer
from store.chat.shape import text_of
from store.jsontext import JsonObject

MODEL = "demo-teacher"
_ECHO_CHARS = 200


class DemoTeacher:
    """Answers requests. Its only state is how often it has written new inputs."""

    def __init__(self) -> None:
        self._writer = Writer()

    def __call__(self, body: JsonObject) -> Reply:
        call = structured_call(body)
        if call is not None:
            return self._writer.reply(call)
        text = last_user_text(body["messages"])
        if not text.strip():
            raise Refusal(400, "No user message with text to answer.", param="messages")
        task = _TASK_OF.get(system_text(body["messages"]))
        if task is None:
            return Reply("answers/other", f"You wrote: {' '.join(text.split())[:_ECHO_CHARS]}")
        return Reply(f"answers/{task.name}", task.answer(text))


_TASK_OF = {task.system: task for task in TASKS.values()}


def system_text(messages: list[JsonObject]) -> str:
    """The request's system prompt."""
    return "\n".join(
        text_of(m.get("content")) for m in messages if m["role"] in ("system", "developer")
    ).strip()


def last_user_text(messages: list[JsonObject]) -> str:
    """The text of the last user message; empty without one."""
    texts = [text_of(m.get("content")) for m in messages if m["role"] == "user"]
    return texts[-1] if texts else ""


async def start_teacher(port: int = 0, latency_s: float = 0.0) -> TeacherServer:
    """A running stand-in teacher on loopback. The caller stops it (`async with` does)."""
    server = TeacherServer(DemoTeacher(), models=[MODEL], latency_s=latency_s)
    await server.start(port)
    return server


async def _serve(port: int, latency_s: float) -> None:
    async with await start_teacher(port, latency_s) as server:
        print(f"teacher {MODEL} at {server.base_url}", flush=True)
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.teacher.teacher", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--latency-ms", type=float, default=0, help="waited before every answer")
    args = parser.parse_args()
    asyncio.run(_serve(args.port, args.latency_ms / 1000))


if __name__ == "__main__":
    main()
