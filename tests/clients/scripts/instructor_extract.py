"""instructor: an extraction by JSON schema, and one by tool call."""

import json
import os

import instructor
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


def extracted(mode: instructor.Mode) -> dict[str, object]:
    ticket = instructor.from_openai(client, mode=mode).chat.completions.create(
        model="gpt-4o",
        response_model=Ticket,
        messages=[{"role": "user", "content": "My parcel is late."}],
    )
    found: dict[str, object] = ticket.model_dump()
    return found


print(
    json.dumps(
        {
            "by_schema": extracted(instructor.Mode.JSON_SCHEMA),
            "by_tool": extracted(instructor.Mode.TOOLS),
        }
    )
)
