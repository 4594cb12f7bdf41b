"""What a sweep has come to, left where people look: files in the work folder, MLflow, artifacts of the flow run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from dashboards.ablation import write_markdown, write_page
from flows.naming import artifact_key
from flows.notify import tell
from siri import tracking
from siri.home import Home
from siri.markdown import plain
from siri.tracking.content import DESCRIPTION, caution_tags
from sweeps.diff import Changes, read_changes
from sweeps.export import plain_rows, tables, write_tables
from sweeps.phase import Job
from sweeps.results import Result, read_results


def write_results(results: Sequence[Result], home: Home) -> Path:
    """Write tables and page of a sweep below the work folder's reports; returns the page."""
    folder = home.reports / results[-1].study
    write_tables(results, folder)
    return write_page(results, folder / "report.html")


Outcome = Literal["ended", "capped", "stopped"]
"""How a call of a sweep came out: all trials finished, no more allowed, stopped or failed before."""


def publish(job: Job, more: int, outcome: Outcome) -> None:
    """Publish the results as they stand, and what has changed since they were last published.

    A run that added `more` shows the changes in place of the tables. Studies of which nothing has been measured yet
    have no tables.
    """
    results = read_results(job)
    main, changes = results[-1], read_changes(job, results)
    note = _write_note(main, changes.lines)
    if more or (changes.before and changes.lines):
        create_markdown_artifact(markdown=note, key=artifact_key("changes", main.study), description=plain(main.study))
    if not main.values.empty:
        page = write_results(results, job.home)
        tags = {"sweep.name": main.sweep, "sweep.size": main.size} | caution_tags(main.caution) | {DESCRIPTION: note}
        tracking.record_sweep(job.home, main.study, tags, page.parent)
        if not more:
            arms, about = tables(main)["arms"], plain(f"{main.study}: {main.caution}" if main.caution else main.study)
            create_table_artifact(table=plain_rows(arms), key=artifact_key("arms", main.study), description=about)
            text, key = write_markdown(results), artifact_key("sweep", main.study)
            create_markdown_artifact(markdown=text, key=key, description=plain(main.study))
    _tell(main, changes, outcome)
    changes.mark()


def _write_note(main: Result, changes: Sequence[str]) -> str:
    """Markdown: the verdicts, and what has changed since last time."""
    said = [f"**Caution:** {main.caution}.", ""] if main.caution else []
    verdicts = [f"- {plain(verdict.claim)}: {verdict.outcome}" for verdict in main.verdicts]
    changed = [f"- {plain(change)}" for change in changes or ["nothing has changed"]]
    return "\n".join([f"# {plain(main.study)}", *said, *verdicts, "", "Since last time:", "", *changed])


def _tell(main: Result, changes: Changes, outcome: Outcome) -> None:
    """Notify people: of an end that changed something, and of a verdict that is another one now."""
    if not changes.lines or (outcome == "stopped" and not changes.verdicts):
        return
    if outcome == "stopped":
        tell(main.study, "changed", changes.verdicts)
        return
    state = "is through" if outcome == "ended" else "has reached its cap"
    failed = f", {main.failed} trials failed" if main.failed else ""
    verdicts = [f"{verdict.claim}: {verdict.outcome}" for verdict in main.verdicts]
    tell(main.study, outcome, [f"the sweep {state}{failed}", *verdicts, "since last time:", *changes.lines])
