"""LiteLLM's SDK: plain, streamed, asynchronous, with a schema."""

import asyncio
import json
import os

import litellm
from pydantic import BaseModel


class Ticket(BaseModel):
    category: str
    urgent: bool


ASKED = {
    "model": "openai/gpt-4o",
    "api_base": os.environ["BASE_URL"],
    "api_key": os.environ["API_KEY"],
    "extra_headers": {"X-Understudy-Task": os.environ["TASK"]},
    "messages": [
        {"role": "system", "content": "You triage tickets. Answer in JSON."},
        {"role": "user", "content": "My parcel is late."},
    ],
    "num_retries": 0,
}

plain = litellm.completion(**ASKED).choices[0].message.content
streamed = "".join(
    chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ASKED, stream=True)
)
later = asyncio.run(litellm.acompletion(**ASKED)).choices[0].message.content
parsed = litellm.completion(**ASKED, response_format=Ticket).choices[0].message.content

print(
    json.dumps({"plain": plain, "streamed": streamed, "async": later, "parsed": json.loads(parsed)})
)
