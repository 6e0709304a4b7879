"""LangChain's ChatOpenAI: invoked, streamed, asynchronous, structured, with a tool."""

import asyncio
import json
import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Ticket(BaseModel):
    """A ticket."""

    category: str
    urgent: bool


@tool
def lookup_order(order_id: str) -> str:
    """Looks an order up."""
    return order_id


model = ChatOpenAI(
    model="gpt-4o",
    base_url=os.environ["BASE_URL"],
    api_key=os.environ["API_KEY"],
    default_headers={"X-Understudy-Task": os.environ["TASK"]},
    max_retries=0,
)
MESSAGES = [
    ("system", "You triage tickets. Answer in JSON."),
    ("user", "My parcel is late."),
]

structured = model.with_structured_output(Ticket, method="json_schema").invoke(MESSAGES)
[call] = model.bind_tools([lookup_order]).invoke(MESSAGES).tool_calls
print(
    json.dumps(
        {
            "plain": model.invoke(MESSAGES).content,
            "streamed": "".join(chunk.content for chunk in model.stream(MESSAGES)),
            "async": asyncio.run(model.ainvoke(MESSAGES)).content,
            "parsed": structured.model_dump(),
            "call": {
                "name": call["name"],
                "arguments": json.dumps(call["args"], separators=(",", ":")),
            },
        }
    )
)
