"""What may run. These functions only read; see `pyapi.workspace` for how a call behaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from .calls import Call, Statement, columns, each, one, scalar, scalars, sync


@dataclass(frozen=True, slots=True)
class RuntimeEntry:
    """A runtime that the registry knows."""

    runtime: str
    model_policy: str
    """`registered`: a model has to be registered for it; `any`: every model is accepted."""
    default_model: str | None
    models: int
    """How many models are on its menu; 0 for a federated runtime."""
    providers: list[str]
    """The providers of its arms, in order."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model on a runtime's menu."""

    position: int
    """Its place on the menu, from 1."""
    model: str
    provider: str
    billed_to: str
    """Who pays: `platform` or `tenant`."""
    is_default: bool
    deprecated_at: datetime | None
    """From when on it should not be used any more; None: it is not deprecated."""
    sunset_at: datetime | None
    """From when on it is not going to work, if that is known."""
    successor: str | None
    """The model to use instead, if one is named."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed in a database, and loaded."""

    schema_revision: str | None
    """The migration it stands at."""
    registry_revision: int
    """The registry that is loaded; 0: none."""


_RESOLVE: Statement[str | None] = Statement(
    """
    select registry.resolve(
        runtime => %(runtime)s::text, model => %(model)s::text, auth_env => %(auth_env)s::text[])
    """,
    scalar,
    reads_only=True,
)


def resolve_call(runtime: str, model: str, *, auth_env: Iterable[str] = ()) -> Call[str | None]:
    """Name the provider that serves a model on a runtime; None if none does.

    `auth_env` are the names of the credentials at hand: they decide where several providers list
    the model.

    Raises: InvalidArgument, RuntimeUnsupported, RegistryUnavailable.
    """
    # A lone string is left as it is, for the database to refuse: its letters are not names.
    names = auth_env if isinstance(auth_env, str) else list(auth_env)
    return Call(_RESOLVE, {"runtime": runtime, "model": model, "auth_env": names})


_DEFAULT_MODEL: Statement[str | None] = Statement(
    "select registry.default_model(runtime => %(runtime)s::text)", scalar, reads_only=True
)


def default_model_call(runtime: str) -> Call[str | None]:
    """Name the model a runtime falls back to; None if it has none.

    Raises: InvalidArgument, RuntimeUnsupported, RegistryUnavailable.
    """
    return Call(_DEFAULT_MODEL, {"runtime": runtime})


_MENU: Statement[list[str]] = Statement(
    "select m.model from registry.menu(runtime => %(runtime)s::text) as m (model)",
    scalars,
    reads_only=True,
)


def menu_call(runtime: str) -> Call[list[str]]:
    """List a runtime's registered models in order.

    Raises: InvalidArgument, RuntimeUnsupported, RegistryUnavailable.
    """
    return Call(_MENU, {"runtime": runtime})


_LIST_RUNTIMES = Statement(
    f"select {columns(RuntimeEntry)} from registry.list_runtimes()",
    each(RuntimeEntry),
    reads_only=True,
)


def list_runtimes_call() -> Call[list[RuntimeEntry]]:
    """List every runtime, in the manifest's order; empty if no registry is loaded."""
    return Call(_LIST_RUNTIMES, {})


_LIST_MODELS = Statement(
    f"select {columns(ModelEntry)} from registry.list_models(runtime => %(runtime)s::text)",
    each(ModelEntry),
    reads_only=True,
)


def list_models_call(runtime: str) -> Call[list[ModelEntry]]:
    """List a runtime's registered models in order, with who serves each and who pays.

    Raises: InvalidArgument, RuntimeUnsupported, RegistryUnavailable.
    """
    return Call(_LIST_MODELS, {"runtime": runtime})


_STATUS = Statement(
    f"select {columns(Installation)} from registry.status()", one(Installation), reads_only=True
)


def status_call() -> Call[Installation]:
    """Tell what is installed and loaded: whoever serves from a database looks here whether it can.

    It needs no more than the role runtime_registry_reader.
    """
    return Call(_STATUS, {})


resolve = sync(resolve_call)
default_model = sync(default_model_call)
menu = sync(menu_call)
list_runtimes = sync(list_runtimes_call)
list_models = sync(list_models_call)
status = sync(status_call)
