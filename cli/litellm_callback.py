"""For an existing LiteLLM proxy: journals its traffic, by one line in its config.

    litellm_settings:
      callbacks: cli.litellm_callback.journal

`UNDERSTUDY_CONFIG` is the path of the config with Understudy's data folder and privacy settings.
`UNDERSTUDY_DATA_DIR` overrides the folder, or gives it without a config. LiteLLM never waits and
never fails because of it: calls are queued and written by a thread; what does not fit into the
queue is dropped and counted in the log, without a word of its content.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from cli.imports.litellm import CHAT_CALLS, REDACTED, cost_of, key_alias, task_names
from cli.imports.logged import LoggedCall, Unusable, first_task, make_trace
from cli.imports.openai import answers_of
from cli.imports.values import as_count, as_list, as_object, as_text, as_time
from cli.serve.litellm_child import KEY_VARIABLE
from store.errors import ConfigError
from store.files.journal import JournalWriter
from store.jsontext import JsonMapping, to_json
from store.privacy.redaction import Redaction, redaction_of
from store.privacy.settings import PrivacySettings
from store.records import Trace
from store.settings.config import JournalSettings, load_config

DATA_DIR, CONFIG = "UNDERSTUDY_DATA_DIR", "UNDERSTUDY_CONFIG"
SOURCE = "litellm"
TASK_HEADER, TRACE_HEADER = "x-understudy-task", "x-understudy-trace"
STORE_HEADER = "x-understudy-store"
MAX_WAITING = 1_000  # calls in the queue
TICK_S = 0.25
REPORT_EVERY_S = 60.0
CLOSE_S = 5.0

log = logging.getLogger("understudy.litellm")


@dataclass(frozen=True, slots=True)
class LitellmEvent:
    """LiteLLM's data on a call, unparsed: the writing thread parses it."""

    payload: JsonMapping  # LiteLLM's standard logging payload
    body: JsonMapping  # the client's request
    headers: JsonMapping  # of that request


class UnderstudyJournal(CustomLogger):  # type: ignore[misc]  # LiteLLM has no types to check against
    """Hands LiteLLM's chat completions to Understudy as traces.

    It ignores other calls, and those through Understudy itself, which journals its own.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        privacy: PrivacySettings | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """Arguments default to the environment variables."""
        super().__init__()
        self._data_dir = data_dir
        self._privacy = privacy or PrivacySettings()
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._writing: _Writing | None = None
        self._off = False  # nowhere to write to

    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._take(kwargs)

    def log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._take(kwargs)

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._take(kwargs)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._take(kwargs)

    @property
    def dropped(self) -> dict[str, int]:
        """How many calls of this process were not journalled, by reason."""
        return dict(self._writing.dropped) if self._writing else {}

    def close(self) -> None:
        """Writes the queued calls, for some seconds at most."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _take(self, kwargs: Any) -> None:
        try:
            event = _event(kwargs)
            if event is None or self._off:
                return
            writing = self._writing
            if writing is None or writing.pid != os.getpid():  # LiteLLM may fork its workers
                writing = self._start()
            if writing is not None:
                writing.put(event)
        except Exception as error:  # LiteLLM's own work must go on
            log.warning("a call was not journalled: %s", type(error).__name__)

    def _start(self) -> _Writing | None:
        with self._lock:
            if self._writing is None or self._writing.pid != os.getpid():
                place = (
                    _destination() if self._data_dir is None else (self._data_dir, self._privacy)
                )
                if place is None:
                    self._off = True
                    return None
                self._writing = _Writing(*place, self._max_waiting)
                atexit.register(self.close)
            return self._writing


class _Writing:
    """The queue of one process, and the thread that empties it into the journal."""

    def __init__(self, data_dir: Path, privacy: PrivacySettings, max_waiting: int) -> None:
        self.pid = os.getpid()
        self._privacy = privacy
        self._redaction: Redaction | None = None
        self._unredacted = False  # the redaction cannot be used
        self.dropped: Counter[str] = Counter()
        self._journal = JournalWriter(data_dir / "journal", JournalSettings(), worker=self.pid)
        self._queue: queue.Queue[LitellmEvent | None] = queue.Queue(max_waiting)
        self._reported: Counter[str] = Counter()
        self._reported_at = 0.0
        self._thread = threading.Thread(target=self._run, name="understudy-journal", daemon=True)
        self._thread.start()

    def put(self, event: LitellmEvent) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.dropped["the queue was full"] += 1

    def close(self) -> None:
        if self.pid != os.getpid():
            return
        try:
            self._queue.put(None, timeout=CLOSE_S)
            self._thread.join(CLOSE_S)
        except queue.Full:
            log.warning("some calls were not journalled: the disk is too slow, or LiteLLM stopped")

    def _run(self) -> None:
        try:
            self._redaction = redaction_of(self._privacy)  # may take seconds
        except Exception as error:  # without its rules nothing is written
            log.error("nothing is journalled: %s", error)
            self._unredacted = True
        while True:
            try:
                event = self._queue.get(timeout=TICK_S)
            except queue.Empty:
                self._tick()
                continue
            if event is None:
                break
            self._write(event)
            if self._queue.empty():
                self._tick()
        self._journal.close()
        self._tick(last=True)

    def _write(self, event: LitellmEvent) -> None:
        try:
            if self._unredacted:
                raise Unusable("the redaction cannot be used")
            keep_content = may_keep_content(event, self._privacy)
            trace = trace_of_event(event, redaction=self._redaction, keep_content=keep_content)
            if trace is not None:
                self._journal.append(trace)
        except Unusable as why:
            self.dropped[str(why)] += 1
        except Exception as error:  # the thread lives as long as LiteLLM
            self.dropped[f"{type(error).__name__} inside us"] += 1

    def _tick(self, *, last: bool = False) -> None:
        self._journal.tick()
        health = self._journal.health
        if health.lost:
            self.dropped["the disk is full or slow"] = health.lost
        now = time.monotonic()
        if self.dropped != self._reported and (last or now - self._reported_at >= REPORT_EVERY_S):
            counts = ", ".join(f"{count} ({why})" for why, count in self.dropped.most_common())
            log.warning("calls that were not journalled since the start: %s", counts)
            self._reported, self._reported_at = self.dropped.copy(), now


def may_keep_content(event: LitellmEvent, privacy: PrivacySettings) -> bool:
    """Whether the content of a call may be kept, by its header and by `store` in its body."""
    header = next((v for n, v in event.headers.items() if n.lower() == STORE_HEADER), "true")
    refused = event.body.get("store") is False and "chat_completions" in privacy.store_false
    return str(header).strip().lower() == "true" and not refused


def trace_of_event(
    event: LitellmEvent, *, redaction: Redaction | None = None, keep_content: bool = True
) -> Trace | None:
    """The trace of a call; None if it is not a chat completion.

    `keep_content`: False for a client that has opted out. Raises Unusable with the reason.
    """
    payload, body = event.payload, event.body
    if (payload.get("call_type") or "") not in CHAT_CALLS:
        return None
    messages, response = payload.get("messages"), payload.get("response")
    if REDACTED in to_json([messages, response]):
        raise Unusable("LiteLLM redacted it")
    metadata = as_object(payload.get("metadata"))
    failed = payload.get("status") == "failure"
    error = as_object(payload.get("error_information"))
    completion = answers_of(as_object(response))
    counts = {
        "input_tokens": completion["input_tokens"] or as_count(payload.get("prompt_tokens")),
        "output_tokens": completion["output_tokens"] or as_count(payload.get("completion_tokens")),
    }
    streamed = payload.get("stream") is True or body.get("stream") is True
    model = body.get("model") or payload.get("model_group") or payload.get("model")
    params = {**as_object(payload.get("model_parameters")), **body}
    tags = [*as_list(payload.get("request_tags")), key_alias(metadata)]
    header = next((v for n, v in event.headers.items() if n.lower() == TASK_HEADER), None)
    call = LoggedCall(
        request={**params, "messages": messages, "stream": streamed or None},
        **{**completion, **({} if failed else counts)},
        call_id=completion["response_id"] or as_text(payload.get("id")) or "",
        start_time=as_time(payload.get("startTime")),
        end_time=as_time(payload.get("endTime")),
        first_chunk_at=as_time(payload.get("completionStartTime")) if streamed else None,
        provider_name=as_text(payload.get("custom_llm_provider")),
        cost_usd=None
        if failed
        else cost_of(payload.get("response_cost"), payload.get("cache_hit")),
        api_key_hash=as_text(metadata.get("user_api_key_hash")),
        end_user=as_text(payload.get("end_user")) or as_text(body.get("user")),
        failed=(as_text(error.get("error_class")) or "error") if failed else None,
        status_code=(as_count(error.get("error_code")) or 500) if failed else 200,
    )
    task = first_task([header, *task_names(body, metadata)], tags)
    return make_trace(
        call,
        source=SOURCE,
        task=task,
        model=as_text(model),
        at=time.time(),
        redaction=redaction,
        keep_content=keep_content,
    )


def _event(kwargs: Any) -> LitellmEvent | None:
    payload = kwargs.get("standard_logging_object")
    if not isinstance(payload, Mapping) or KEY_VARIABLE in os.environ:
        return None  # as Understudy's own child, whose calls the proxy journals
    answered = as_object(as_object(payload.get("hidden_params")).get("additional_headers"))
    if any(TRACE_HEADER in str(name).replace("_", "-") for name in answered):
        return None  # Understudy is the endpoint that answered
    sent = as_object(as_object(kwargs.get("litellm_params")).get("proxy_server_request"))
    return LitellmEvent(payload, as_object(sent.get("body")), as_object(sent.get("headers")))


def _destination() -> tuple[Path, PrivacySettings] | None:
    """The data folder and the privacy settings, by the environment; None with a line in the log."""
    folder, config = os.environ.get(DATA_DIR), os.environ.get(CONFIG)
    try:
        if config:
            settings = load_config(Path(config))
            return Path(folder) if folder else settings.data_dir, settings.privacy
        if folder:
            return Path(folder), PrivacySettings()
        log.error(
            "nothing is journalled: set %s to Understudy's data folder, or %s to its config",
            *(DATA_DIR, CONFIG),
        )
    except ConfigError as error:
        log.error("nothing is journalled: %s", error)
    return None


journal = UnderstudyJournal()
