"""What a sweep has come to, left where people look: files in the work folder, MLflow, artifacts of the flow run."""

from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from dashboards.ablation import write_markdown, write_page
from siri import tracking
from siri.home import Home
from siri.tracking.content import caution_tags
from sweeps.diff import report_changes
from sweeps.export import plain_rows, tables, write_tables
from sweeps.phase import Job
from sweeps.results import Result, read_results


def write_results(results: Sequence[Result], home: Home) -> Path:
    """Write tables and page of a sweep below the work folder's reports; returns the page."""
    folder = home.reports / results[-1].study
    write_tables(results, folder)
    return write_page(results, folder / "report.html")


def publish(job: Job, more: int) -> None:
    """Publish the results as they stand: the whole of them, or what has changed since the last run that added `more`.

    Studies of which nothing has been measured yet have no artifacts.
    """
    results = read_results(job)
    main = results[-1]
    if more:
        changes = report_changes(job, results)
        said = [f"**Caution:** {main.caution}.", ""] if main.caution else []
        lines = [f"# {main.study}", *said, *(f"- {change}" for change in changes or ["nothing has changed"])]
        create_markdown_artifact(markdown="\n".join(lines), key="changes", description=main.study)
    if main.values.empty:
        return
    page = write_results(results, job.home)
    tags = {"sweep.name": main.sweep, "sweep.size": main.size} | caution_tags(main.caution)
    tracking.record_sweep(job.home, main.study, tags, page.parent)
    if not more:
        arms, about = tables(main)["arms"], f"{main.study}: {main.caution}" if main.caution else main.study
        create_table_artifact(table=plain_rows(arms), key="arms", description=about)
        create_markdown_artifact(markdown=write_markdown(results), key="sweep", description=main.study)
