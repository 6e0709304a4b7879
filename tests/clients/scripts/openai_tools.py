"""OpenAI's Python client: a tool is called, run, and its result handed back; embeddings."""

import json
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ["BASE_URL"],
    api_key=os.environ["API_KEY"],
    default_headers={"X-Understudy-Task": os.environ["TASK"]},
    max_retries=0,
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup_order",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}},
                "required": ["order_id"],
            },
        },
    }
]
messages = [{"role": "user", "content": "Where is order A-17?"}]

first = client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS).choices[0]
assert first.finish_reason == "tool_calls"
call = first.message.tool_calls[0]

pieces = {"name": "", "arguments": ""}
for chunk in client.chat.completions.create(
    model="gpt-4o", messages=messages, tools=TOOLS, stream=True
):
    for piece in chunk.choices[0].delta.tool_calls or ():
        pieces["name"] += piece.function.name or ""
        pieces["arguments"] += piece.function.arguments or ""

messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "on its way"}]
after = client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS)
vectors = client.embeddings.create(model="embedder", input="hello", encoding_format="float")

print(
    json.dumps(
        {
            "call": {"name": call.function.name, "arguments": call.function.arguments},
            "streamed": pieces,
            "after": after.choices[0].message.content,
            "embedding": vectors.data[0].embedding,
        }
    )
)
