"""Which endpoint answers for which model name: LiteLLM's `model_list`, read without LiteLLM.

`openai/…` deployments are called directly. Everything else, and every config that uses LiteLLM's
own settings, is called through the LiteLLM proxy that runs as a child of ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from store.errors import ConfigError
from store.jsontext import JsonObject
from store.settings.config import (
    ENV_PREFIX,
    LITELLM_BLOCKS,
    Config,
    from_environment,
    header_safe,
)

OPENAI_BASE_URL = "https://api.openai.com/v1"
# a deployment with any other litellm_params needs LiteLLM itself
_DIRECT_PARAMS = {
    "model",
    "api_key",
    "api_base",
    "base_url",
    "input_cost_per_token",
    "output_cost_per_token",
}


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a token."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class Deployment:
    """One endpoint that answers for a model name."""

    model_name: str  # as clients name it; may be a wildcard such as `*` or `openai/*`
    upstream_model: str  # as the endpoint names it
    base_url: str  # with /v1, without a trailing slash
    api_key: str | None
    provider: str
    direct: bool  # False: through the LiteLLM child

    @property
    def endpoint(self) -> tuple[str, str | None]:
        """The address and the account: what one of them made, no other one knows."""
        return self.base_url, self.api_key

    def __repr__(self) -> str:  # never shows the key
        return f"Deployment({self.model_name} → {self.provider}/{self.upstream_model})"


def needs_litellm(config: Config) -> bool:
    """Whether any deployment has to be called through the LiteLLM proxy."""
    return any(not _is_direct(config, entry) for entry in config.model_list)


def deployments(
    config: Config, *, litellm_url: str | None = None, litellm_key: str | None = None
) -> list[Deployment]:
    """All deployments in the order of `model_list`.

    Raises ConfigError when a directly called one names an environment variable that is not set.
    """
    result = []
    for number, entry in enumerate(config.model_list):
        name, params = entry["model_name"], entry["litellm_params"]
        provider, _, upstream = (
            params["model"].rpartition("/")
            if "/" in params["model"]
            else (
                "openai",
                "",
                params["model"],
            )
        )
        if _is_direct(config, entry):
            params = from_environment(params, f"model_list[{number}] ({name})")
            base = params.get("api_base") or params.get("base_url") or OPENAI_BASE_URL
            key = params.get("api_key") or os.environ.get("OPENAI_API_KEY") or None
            if key is not None:
                key = _sendable(str(key), f"model_list[{number}] ({name})")
            if key is None and base == OPENAI_BASE_URL:
                raise ConfigError(
                    f"model_list[{number}] ({name}): no api_key, and OPENAI_API_KEY is not set"
                )
            upstream = params["model"].removeprefix("openai/")
            result.append(Deployment(name, upstream, base.rstrip("/"), key, "openai", True))
        else:
            _check_handed_on(params.get("api_key"), f"model_list[{number}] ({name})")
            result.append(
                Deployment(
                    name,
                    name,
                    (litellm_url or "").rstrip("/"),
                    litellm_key,
                    provider.split("/")[0],
                    False,
                )
            )
    return result


def _sendable(key: str, where: str) -> str:
    """The key as a header holds it. Raises ConfigError."""
    try:
        return header_safe(key)
    except ValueError as error:
        raise ConfigError(f"{where}.litellm_params.api_key: {error}") from None


def _check_handed_on(key: object, where: str) -> None:
    """Raises ConfigError for a key that LiteLLM could not send; a variable that is not set may be
    of no use to it.
    """
    if isinstance(key, str) and key.startswith(ENV_PREFIX):
        key = os.environ.get(key.removeprefix(ENV_PREFIX))
    if isinstance(key, str) and key:
        _sendable(key, where)


class TeacherPool:
    """Chooses the deployment for a model name; several of one name take turns."""

    def __init__(self, deployments: list[Deployment], default: str | None) -> None:
        self.deployments = deployments
        self.default = default or deployments[0].model_name
        self._named: dict[str, list[Deployment]] = {}
        for deployment in deployments:
            self._named.setdefault(deployment.model_name, []).append(deployment)
        self._turns: dict[str, count[int]] = {}

    @property
    def model_names(self) -> list[str]:
        """The names that clients may use, each once, wildcards left out."""
        names = dict.fromkeys(d.model_name for d in self.deployments)
        return [name for name in names if "*" not in name]

    @property
    def wildcards(self) -> list[Deployment]:
        """The deployments whose name has a wildcard, one of each endpoint."""
        return _distinct(d for d in self.deployments if "*" in d.model_name)

    @property
    def endpoints(self) -> list[Deployment]:
        """One deployment of each endpoint, in the order of `model_list`."""
        return _distinct(self.deployments)

    def choose_beside(self, model: str, other: Deployment) -> Deployment | None:
        """The deployment for a model name at the endpoint of another one, if there is one."""
        for deployment in self._named.get(model, ()):
            if deployment.endpoint == other.endpoint:
                return deployment
        return None

    def all_of(self, model: str) -> list[Deployment]:
        """All deployments of a model name that is no wildcard, one of each endpoint."""
        return _distinct(self._named.get(model, ()))

    def choose(self, model: str) -> Deployment | None:
        """The deployment for this model name, or None when no entry matches."""
        same = self._named.get(model)
        if same is not None:
            if len(same) == 1:
                return same[0]
            turn = next(self._turns.setdefault(model, count()))
            return same[turn % len(same)]
        for deployment in self.deployments:
            matched = _wildcard(deployment.model_name, model)
            if matched is not None:
                upstream = deployment.upstream_model
                name = upstream.replace("*", matched) if deployment.direct else model
                return Deployment(
                    model,
                    name,
                    deployment.base_url,
                    deployment.api_key,
                    deployment.provider,
                    deployment.direct,
                )
        return None


def _distinct(deployments: Iterable[Deployment]) -> list[Deployment]:
    first: dict[tuple[str, str | None], Deployment] = {}
    for deployment in deployments:
        first.setdefault(deployment.endpoint, deployment)
    return list(first.values())


def name_of_wildcard(deployment: Deployment, upstream: str) -> str | None:
    """The name that clients use for one of the endpoint's own models; None if it has none."""
    matched = _wildcard(deployment.upstream_model, upstream) if deployment.direct else upstream
    if matched is None or "*" in upstream:
        return None
    return deployment.model_name.replace("*", matched) if deployment.direct else upstream


def teacher_pool(
    config: Config, *, litellm_url: str | None = None, litellm_key: str | None = None
) -> TeacherPool:
    """The pool that a config describes."""
    return TeacherPool(
        deployments(config, litellm_url=litellm_url, litellm_key=litellm_key), config.teacher.model
    )


def prices(config: Config) -> dict[str, Price]:
    """The price of each model name that has one: stated in the config, else in LiteLLM's table."""
    known: dict[str, Price] = {}
    for entry in config.model_list:
        price = _price(entry)
        if price is not None:
            known.setdefault(entry["model_name"], price)
    return known


def price_of(known: Mapping[str, Price], model: str) -> Price | None:
    """The price of one model name among `prices`, wildcard names included; None when unknown."""
    if model in known:
        return known[model]
    fits = (price for name, price in known.items() if _wildcard(name, model) is not None)
    return next(fits, None)


def _is_direct(config: Config, entry: JsonObject) -> bool:
    if any(getattr(config, block) for block in LITELLM_BLOCKS):
        return False
    params = entry["litellm_params"]
    model = params["model"]
    provider = model.split("/", 1)[0] if "/" in model else None
    openai = provider == "openai" or (provider is None and _is_openai_name(model))
    return openai and set(params) <= _DIRECT_PARAMS


def _is_openai_name(model: str) -> bool:
    return _price_map().get(model, {}).get("litellm_provider") == "openai"


def _wildcard(pattern: str, model: str) -> str | None:
    if "*" not in pattern:
        return None
    before, _, after = pattern.partition("*")
    fits = model.startswith(before) and model.endswith(after)
    long_enough = len(model) >= len(before) + len(after)
    return model[len(before) : len(model) - len(after)] if fits and long_enough else None


def _price(entry: JsonObject) -> Price | None:
    for place in (entry.get("model_info") or {}, entry["litellm_params"]):
        if "input_cost_per_token" in place or "output_cost_per_token" in place:
            return Price(
                float(place.get("input_cost_per_token") or 0),
                float(place.get("output_cost_per_token") or 0),
            )
    model = entry["litellm_params"]["model"]
    row = _price_map().get(model) or _price_map().get(model.removeprefix("openai/"))
    if not row or row.get("input_cost_per_token") is None:
        return None
    return Price(float(row["input_cost_per_token"]), float(row.get("output_cost_per_token") or 0))


@lru_cache(maxsize=1)
def _price_map() -> dict[str, JsonObject]:
    """LiteLLM's price table, read from its package without importing it (that takes 12 s)."""
    spec = find_spec("litellm")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "model_prices_and_context_window_backup.json"
        if file.exists():
            table: dict[str, JsonObject] = json.loads(file.read_text(encoding="utf-8"))
            return table
    return {}
