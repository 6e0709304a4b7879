"""OpenAI's asynchronous Python client: many at a time, the stream helper, parsed."""

import asyncio
import json
import os

from openai import AsyncOpenAI
from pydantic import BaseModel


class Ticket(BaseModel):
    category: str
    urgent: bool


MESSAGES = [
    {"role": "system", "content": "You triage tickets. Answer in JSON."},
    {"role": "user", "content": "My parcel is late."},
]


async def main() -> None:
    async with AsyncOpenAI(
        base_url=os.environ["BASE_URL"],
        api_key=os.environ["API_KEY"],
        default_headers={"X-Understudy-Task": os.environ["TASK"]},
        max_retries=0,
    ) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="gpt-4o", messages=MESSAGES) for _ in range(8))
        )
        async with client.chat.completions.stream(
            model="gpt-4o", messages=MESSAGES, stream_options={"include_usage": True}
        ) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        parsed = await client.chat.completions.parse(
            model="gpt-4o", messages=MESSAGES, response_format=Ticket
        )
    ticket = parsed.choices[0].message.parsed
    assert ticket is not None
    print(
        json.dumps(
            {
                "plain": [answer.choices[0].message.content for answer in answers],
                "streamed": final.choices[0].message.content,
                "parsed": ticket.model_dump(),
                "usage": final.usage is not None,
            }
        )
    )


asyncio.run(main())
