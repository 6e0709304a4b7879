"""Each setting changes something that can be seen from outside: no setting without effect.

The tables have two values of each, with their effects; see tests/helpers/effects.py.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from store.privacy.settings import PresidioSettings, RedactRule
from store.settings.config import ApiKey, Config
from tests.helpers.config_leaves import leaves
from tests.helpers.effects import Effect
from tests.helpers.effects_distilling import DISTILLING
from tests.helpers.effects_judging import JUDGING
from tests.helpers.effects_learning import LEARNING
from tests.helpers.effects_limits import LIMITS
from tests.helpers.effects_live import LIVE
from tests.helpers.effects_privacy import PRIVACY
from tests.helpers.effects_responses import RESPONSES
from tests.helpers.effects_rollout import ROLLOUT
from tests.helpers.effects_serving import PARAMS, SERVING
from tests.helpers.effects_storing import STORING

TABLES = (
    SERVING,
    STORING,
    DISTILLING,
    LEARNING,
    JUDGING,
    LIMITS,
    LIVE,
    PRIVACY,
    RESPONSES,
    ROLLOUT,
)
EFFECTS = {path: effect for table in TABLES for path, effect in table.items()}


@pytest.mark.parametrize(
    ("path", "effect"),
    [
        pytest.param(path, effect, id=path, marks=[pytest.mark.slow] if effect.slow else [])
        for path, effect in EFFECTS.items()
    ],
)
async def test_each_setting_changes_what_is_seen(path: str, effect: Effect, tmp_path: Path) -> None:
    assert effect.one[1] != effect.other[1]

    for number, (value, expected) in enumerate((effect.one, effect.other)):
        found = effect.seen(effect.config(path, value, tmp_path / str(number)))
        assert (await found if inspect.isawaitable(found) else found) == expected


def test_no_setting_is_left_out() -> None:
    settings = {".".join(path) for path, _ in leaves(Config)}
    settings |= {f"server.keys.{name}" for name in ApiKey.model_fields}
    settings |= {f"privacy.redact.{name}" for name in RedactRule.model_fields}
    settings |= {f"privacy.presidio.{name}" for name in PresidioSettings.model_fields}

    assert settings <= EFFECTS.keys()
    # the other rows are below model_list, whose schema is LiteLLM's
    assert all(path.startswith(f"{PARAMS}.") for path in EFFECTS.keys() - settings)
    assert sum(map(len, TABLES)) == len(EFFECTS)
