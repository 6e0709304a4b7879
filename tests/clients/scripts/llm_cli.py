"""llm, the command: plain, streamed, with a schema."""

import json
import os
import subprocess
import sys
from pathlib import Path

folder = Path(os.environ["LLM_USER_PATH"])
folder.mkdir(exist_ok=True)
entry = {
    "model_id": "understudy",
    "model_name": "gpt-4o",
    "api_base": os.environ["BASE_URL"],
    "api_key_name": "understudy",
    "headers": {"X-Understudy-Task": os.environ["TASK"]},
    "supports_schema": True,
}
(folder / "extra-openai-models.yaml").write_text(json.dumps([entry]))
(folder / "keys.json").write_text(json.dumps({"understudy": os.environ["API_KEY"]}))


def llm(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "understudy", "--no-log", *arguments],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()


SYSTEM = ("-s", "You triage tickets. Answer in JSON.")
print(
    json.dumps(
        {
            "plain": llm(*SYSTEM, "--no-stream", "My parcel is late."),
            "streamed": llm(*SYSTEM, "My parcel is late."),
            "by_schema": json.loads(
                llm(*SYSTEM, "--schema", "category, urgent bool", "My parcel is late.")
            ),
        }
    )
)
