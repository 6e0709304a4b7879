"""Anthropic's Python client: plain and streamed messages."""

import json
import os

from anthropic import Anthropic

client = Anthropic(
    base_url=os.environ["BASE_URL"].removesuffix("/v1"),
    api_key=os.environ["API_KEY"],
    default_headers={"X-Understudy-Task": os.environ["TASK"]},
    max_retries=0,
)
ASKED = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 64,
    "system": "You triage tickets. Answer in JSON.",
    "messages": [{"role": "user", "content": "My parcel is late."}],
}

plain = client.messages.create(**ASKED)
assert plain.stop_reason == "end_turn" and plain.usage.output_tokens > 0
with client.messages.stream(**ASKED) as stream:
    streamed = "".join(stream.text_stream)

print(json.dumps({"plain": plain.content[0].text, "streamed": streamed}))
