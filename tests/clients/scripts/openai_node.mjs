// OpenAI's client for Node: plain, streamed, its stream helper, Responses, a tool that it runs.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.BASE_URL,
  apiKey: process.env.API_KEY,
  defaultHeaders: { "X-Understudy-Task": process.env.TASK },
  maxRetries: 0,
});
const asked = {
  model: "gpt-4o",
  messages: [
    { role: "system", content: "You triage tickets. Answer in JSON." },
    { role: "user", content: "My parcel is late." },
  ],
};

const plain = await client.chat.completions.create(asked);

let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}

const helper = await client.chat.completions.stream(asked).finalContent();

const response = await client.responses.create({
  model: "gpt-4o",
  instructions: "You triage tickets. Answer in JSON.",
  input: "My parcel is late.",
  store: false,
});

const after = await client.chat.completions
  .runTools({
    model: "gpt-4o",
    messages: [{ role: "user", content: "Where is order A-17?" }],
    tools: [
      {
        type: "function",
        function: {
          name: "lookup_order",
          parse: JSON.parse,
          function: ({ order_id }) => `${order_id} is on its way`,
          parameters: {
            type: "object",
            properties: { order_id: { type: "string" } },
            required: ["order_id"],
          },
        },
      },
    ],
  })
  .finalContent();

console.log(
  JSON.stringify({
    plain: plain.choices[0].message.content,
    streamed,
    helper,
    response: response.output_text,
    after,
  }),
);
