"""OpenAI's Python client and the Responses API: plain, streamed, parsed, the stream helper."""

import json
import os

from openai import OpenAI
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
ASKED = {
    "model": "gpt-4o",
    "instructions": "You triage tickets. Answer in JSON.",
    "input": "My parcel is late.",
}

plain = client.responses.create(**ASKED)
assert plain.object == "response" and plain.status == "completed"
assert plain.usage is not None and plain.usage.total_tokens > 0

streamed, kinds = "", []
for event in client.responses.create(**ASKED, stream=True, store=False):
    kinds.append(event.type)
    if event.type == "response.output_text.delta":
        streamed += event.delta
assert kinds[0] == "response.created" and kinds[-1] == "response.completed"

parsed = client.responses.parse(**ASKED, text_format=Ticket, store=False).output_parsed
assert parsed is not None

with client.responses.stream(**ASKED, store=False) as stream:
    helper = stream.get_final_response().output_text

print(
    json.dumps(
        {
            "plain": plain.output_text,
            "streamed": streamed,
            "parsed": parsed.model_dump(),
            "helper": helper,
        }
    )
)
