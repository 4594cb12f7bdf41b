"""Under which protocol an evaluation was made, and in what two protocols differ: numbers compare under one alone."""

from dataclasses import dataclass, fields
from typing import Any

from siri.evaluation.evaluation import Evaluation


@dataclass(frozen=True)
class Protocol:
    """What an accuracy depends on beside the policy."""

    budget: int
    """Most response tokens."""
    samples: int
    """Responses per problem."""
    temperature: float
    top_p: float
    prompt: dict[str, Any]
    """Template, suffix and what else makes a prompt of a question (see `siri.problems.prompt_link`)."""
    grader: str
    """Name and version of the rules, and of the libraries that they ask."""
    digest: str
    """SHA-256 of the problems: ids, questions and answers, in their order."""
    sampler: dict[str, Any]
    """What wrote the responses: the engine with its versions, device, number format; before that is known, its name."""


def protocol(evaluation: Evaluation) -> Protocol:
    """The protocol of an evaluation: as it was made, or as it would be. Raises InputError as `Evaluation.find` does."""
    entry = evaluation.find()
    if entry is not None:
        return protocol_of(dict(entry.manifest.facts))
    return protocol_of({**evaluation.settings, "sampled_by": {"engine": evaluation.settings["sampler"]}})


def protocol_of(facts: dict[str, Any]) -> Protocol:
    """The protocol that the manifest of an evaluation tells."""
    return Protocol(
        budget=facts["budget"],
        samples=facts["samples"],
        temperature=facts["temperature"],
        top_p=facts["top_p"],
        prompt=facts["prompt"],
        grader=facts["grader"],
        digest=facts["benchmark"],
        sampler=facts["sampled_by"],
    )


def differences(ours: Protocol, theirs: Protocol) -> dict[str, tuple[Any, Any]]:
    """Field -> (ours, theirs) for what differs; a member of `prompt` and `sampler` by itself, as `prompt.suffix`."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for field in fields(Protocol):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(mine, dict):
            names = dict.fromkeys((*mine, *other))
            pairs |= {f"{field.name}.{name}": (mine.get(name), other.get(name)) for name in names}
        else:
            pairs[field.name] = (mine, other)
    return {name: (mine, other) for name, (mine, other) in pairs.items() if mine != other}


def describe_differences(found: dict[str, tuple[Any, Any]]) -> str:
    """In one line, what differs: `budget 16384 and 8192, temperature 0.6 and 1.0`; digests by their beginning."""
    return ", ".join(f"{name} {_shown(mine)} and {_shown(other)}" for name, (mine, other) in found.items())


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) and not value.isalnum() else str(value)
    return text[:12] if len(text) == 64 else text
