"""Rows that papers print, with their source and protocol: to stand beside what was measured, marked as such."""

from typing import Annotated

from pydantic import Field, ValidationError

from siri import shipped
from siri.config.loading import find_settings, first_mistake
from siri.errors import InputError
from siri.settings import Settings
from siri.yaml12 import read_settings

Share = Annotated[float, Field(ge=0, le=100)]


class PublishedProtocol(Settings):
    """How the rows were measured, as far as the paper says."""

    budget: Annotated[int, Field(ge=1)]
    """Most response tokens."""
    samples: Annotated[int, Field(ge=1)]
    """Responses per problem."""
    temperature: Annotated[float, Field(ge=0)]


class PublishedRow(Settings):
    """One model, a value per benchmark of the paper's."""

    accuracy: tuple[Share, ...]
    """Percent, as printed."""
    tokens: tuple[Annotated[float, Field(gt=0)], ...]
    """Mean response tokens."""
    accuracy_cr: float | None = None
    """As printed."""


class Published(Settings):
    """One table of a paper."""

    title: str
    source: str
    """Where it stands."""
    protocol: PublishedProtocol
    benchmarks: tuple[str, ...]
    """By the names of `siri benchmarks`."""
    base: str
    """The row that accuracy–CR is against."""
    rows: dict[str, PublishedRow]


def load_published(name: str) -> Published:
    """A table by the name that it ships under, or of a YAML file like those. Raises InputError."""
    what = f"published={name}"
    values = read_settings(find_settings(name, shipped.PUBLISHED, "published"), what)
    try:
        found = Published.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{what}: {first_mistake(error, Published)}") from None
    if found.base not in found.rows:
        raise InputError(f"{what}: base={found.base}: must be one of its rows, {', '.join(found.rows)}")
    for model, row in found.rows.items():
        for field in ("accuracy", "tokens"):
            count, wanted = len(getattr(row, field)), len(found.benchmarks)
            if count != wanted:
                raise InputError(f"{what}: rows.{model}.{field}: {count} values for {wanted} benchmarks")
    return found
