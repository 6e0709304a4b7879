"""OpenAI's Python client: plain, streamed, parsed, and its errors."""

import json
import os

from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel


class Ticket(BaseModel):
    category: str
    urgent: bool


client = OpenAI(
    base_url=os.environ["BASE_URL"],
    api_key=os.environ["API_KEY"],
    default_headers={"X-Understudy-Task": os.environ["TASK"]},
    max_retries=0,
)
MESSAGES = [
    {"role": "system", "content": "You triage tickets. Answer in JSON."},
    {"role": "user", "content": "My parcel is late."},
]

raw = client.chat.completions.with_raw_response.create(
    model="gpt-4o", messages=MESSAGES, temperature=0
)
plain = raw.parse()
assert raw.headers["x-understudy-trace"]
assert plain.object == "chat.completion" and plain.choices[0].finish_reason == "stop"
assert plain.usage is not None and plain.usage.total_tokens > 0

streamed, usage = "", None
for chunk in client.chat.completions.create(
    model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
):
    if chunk.choices:
        streamed += chunk.choices[0].delta.content or ""
    usage = chunk.usage or usage
assert usage is not None and usage.completion_tokens > 0

parsed = client.chat.completions.parse(
    model="gpt-4o", messages=MESSAGES, response_format=Ticket
).choices[0]
assert parsed.message.parsed is not None

errors = []
try:
    client.chat.completions.create(model="no-such-model", messages=MESSAGES)
except NotFoundError as error:
    errors.append(str(error.status_code))
try:
    client.chat.completions.create(model="gpt-4o", messages=[])
except BadRequestError as error:
    errors.append(str(error.status_code))

print(
    json.dumps(
        {
            "plain": plain.choices[0].message.content,
            "streamed": streamed,
            "parsed": parsed.message.parsed.model_dump(),
            "errors": errors,
        }
    )
)
