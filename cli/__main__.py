"""`python -m cli`: the same as the `understudy` command."""

from cli.main import app

app(prog_name="understudy")
