"""The flow of a sweep: queue its trials, keep worker processes at them, watch; and the flow that each trial is."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Literal, cast
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled
from pydantic import Field

from flows.gpu import make_gpu_limit, needs_gpu_to_measure, turn
from flows.lifecycle import live
from flows.links import link_to_mlflow, page_links
from flows.monitors import publish_alarm
from flows.naming import artifact_key, named
from flows.schedules import give_way
from siri.engines import untrained
from siri.errors import AlarmError, InputError, StoppedError
from siri.home import find_home
from siri.markdown import plain
from siri.monitoring.monitored_run import read_alarms
from siri.processes import children
from siri.processes.stopping import STOP, Stop
from siri.runs import run as runs
from siri.runs.run import Run
from siri.store.entries import BusyError
from siri.terminal import say
from sweeps import studies
from sweeps.cap import open_meter, set_cap
from sweeps.glance import look
from sweeps.phase import Job
from sweeps.studies import Claim, Row, Study
from sweeps.worker import describe_job, perform, serve, work

WATCH_SECONDS = 1.0
"""Between two looks at the workers and the study."""
GRACE_SECONDS = 60.0
"""What workers get to finish their step and keep a checkpoint."""
PAGE_SECONDS = 30.0
"""Between two versions of the artifact that says how far a sweep is."""
VAIN_STARTS = 3
"""Workers that may end one after another with nothing having moved."""
Size = Literal["laptop", "paper"]


@flow(name="ablate", flow_run_name=named("{sweep} {size}"))
def ablate(
    sweep: str = "paper",
    size: Size = "laptop",
    workers: Annotated[int, Field(ge=0)] = 1,
    overrides: list[str] = [],  # noqa: B006
    retry_failed: bool = False,
    more: Annotated[int, Field(ge=0)] = 0,
    at_most: str = "",
) -> str:
    """Run a sweep to its end; returns the name of its last study.

    Run again after a crash of anything, it goes on: finished trials stay as they are, others keep their numbers. What
    it has come to is left as artifacts, also when it is stopped; with `more`, what has changed since the last such run.

    Args:
        sweep: Name of a sweep, such as paper, or a YAML file.
        size: Which of the sweep's sizes.
        workers: Processes; 0: other machines' workers do it all.
        overrides: Changes to all its trials, as in rollout.group_size=4.
        retry_failed: Run failed trials again, as trials of their own.
        more: Seeds of a grid, or suggestions of a search, to add.
        at_most: Start no trial that would take the sweep past it, as in 20M tokens, 6h, 30 trials; empty: no limit.
    """
    waits = give_way()
    if waits is not None:
        return waits  # type: ignore[return-value]
    return live(
        lambda: _ablate(Job(sweep, size, find_home(), extra=tuple(overrides)), workers, retry_failed, more, at_most)
    )


def _ablate(job: Job, workers: int, retry_failed: bool, more: int, at_most: str) -> str:
    for config in {trial.arm: trial.config for trial in job.trials}.values():
        runs.check(config)
    cautions = {said for trial in job.trials if (said := untrained(trial.config.engine.name))}
    study = job.open_study()
    set_cap(job, at_most)
    from flows.publish import Outcome, publish  # pictures and pages: the workers, whose main this file is, do without

    outcome: Outcome = "stopped"
    try:
        for phase in job.phases:
            study = phase.open_study()
            phase.enqueue(study)
            if retry_failed:
                studies.retry_failed(study)
            if more:
                phase.extend(study, more)
            capped = _watch(phase, study, workers)
            table = [*map(_describe, studies.rows(study))]
            key, about = artifact_key("trials", study.name), plain(": ".join([study.name, *cautions]))
            create_table_artifact(table=table, key=key, description=about)
            if capped:
                outcome = "capped"
                return study.name
        outcome = "ended"
    finally:
        publish(job, more, outcome)
    return study.name


def _watch(job: Job, study: Study, workers: int) -> bool:
    """Keep workers at a job until all its trials are finished; whether its cap ended it before.

    Raises StoppedError, InputError.
    """
    crew, meter = Crew(job, study, workers), open_meter(job)
    try:
        while not studies.is_finished(study, job.limit):
            if STOP.is_set():
                raise StoppedError(f"the sweep {study.name}")
            if reached := meter.reached(study):
                crew.show()
                say(reached, sys.stderr)
                return True
            crew.refill()
            crew.show()
            STOP.wait(WATCH_SECONDS)
        crew.show()
        return False
    finally:
        crew.end()


@dataclass
class Crew:
    """The worker processes of a job on this machine."""

    job: Job
    study: Study
    size: int
    workers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    vain: int = 0
    """Workers that have ended since anything moved."""
    seen: Any = None
    shown: str = ""
    due: float = 0.0
    """When the run's page may be written again; monotonic seconds."""
    page: UUID | None = None
    """The artifact that shows how far it is."""

    @property
    def log(self) -> Path:
        """Where workers say what went wrong."""
        return self.job.home.root / "sweeps" / f"{self.study.name}.log"

    def refill(self) -> None:
        """Replace workers that have ended. Raises InputError for the user's mistakes, and when workers keep exiting."""
        state = [(row.state, len(row.attributes)) for row in studies.rows(self.study)]
        self.vain = self.vain if state == self.seen else 0
        self.seen = state
        for worker in [worker for worker in self.workers if worker.poll() is not None]:
            self.workers.remove(worker)
            self.vain += worker.returncode != 0
            if worker.returncode == 2:
                raise InputError(self._last_words())
        if self.vain > VAIN_STARTS:
            raise InputError(f"sweep={self.study.name}: its workers keep exiting; see {self.log}")
        with self._open_log() as log:
            self.workers += [self._start(log) for _ in range(self.size - len(self.workers))]

    def _open_log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return self.log.open("ab")

    def _start(self, log: IO[bytes]) -> "subprocess.Popen[bytes]":
        """In a process group of its own: Ctrl-C reaches it through this process, once."""
        command = children.command("flows.ablation", describe_job(self.job))
        environment = children.environment() | _environment()
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0, env=environment
        )

    def _last_words(self) -> str:
        said = [line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("siri: ")]
        return said[-1].removeprefix("siri: ") if said else f"sweep={self.study.name}: {self.log} says what is wrong"

    def show(self) -> None:
        """One line when something has moved: into the run's log under a worker, else on stderr; now and then on the
        run's page."""
        glance = look(studies.rows(self.study), self.job.limit, self.size)
        line = f"{self.study.name}: {glance.line}"
        if glance.failed:
            line += f"; {self.log} says why it failed, --retry-failed runs it again"
        if line == self.shown:
            return
        self.shown = line
        if deployment.id is None:
            say(line, sys.stderr)
        else:
            get_run_logger().info(line)
        if time.monotonic() >= self.due or glance.done + glance.failed == glance.total:
            self.due = time.monotonic() + PAGE_SECONDS
            self._write_page(glance.markdown)

    def _write_page(self, text: str) -> None:
        """Update the artifact that shows progress; skipped while the server is away, or once it is deleted."""
        with suppress(httpx.TransportError, PrefectHTTPStatusError, ObjectNotFound):
            if self.page is None:
                key = artifact_key("progress", self.study.name)
                made = create_markdown_artifact(text, key=key, description=plain(self.study.name))
                self.page = cast(UUID, made)  # no coroutine, outside of one
            else:
                with get_client(sync_client=True) as client:
                    client.update_artifact(self.page, ArtifactUpdate(data=text))

    def end(self) -> None:
        """Ask the workers to keep their checkpoints and end; kill those that have not after a minute."""
        for worker in self.workers:
            worker.send_signal(signal.SIGINT)  # Prefect makes SIGTERM end a flow at once, without a checkpoint
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self.workers:
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.workers.clear()


def _environment() -> dict[str, str]:
    """Workers share the server that this flow has or has brought; each computes in its recipe's threads."""
    with get_client(sync_client=True) as client:
        make_gpu_limit(client)  # a server that this flow has brought has none yet
        return {"PREFECT_API_URL": str(client.api_url), "OMP_NUM_THREADS": "1"}


def _describe(row: Row) -> dict[str, Any]:
    facts = {name: row.attributes.get(name) for name in ("siri.run", "trained", "seconds", "stopped_at", "siri.error")}
    parameters = {"arm": row.attributes.get("arm"), "seed": row.attributes.get("seed")}
    return {"trial": row.number, "state": row.state, **parameters, **row.values, **facts}


def perform_as_flow(job: Job, study: Study, claim: Claim, run: Run, stop: Stop) -> None:
    """Run a claimed trial as a Prefect flow run, or as a subflow of the one at hand; its parameters are for people.

    Raises StoppedError or BusyError for a trial that is given back, to be gone on with later; it ends as Cancelled.
    """

    @flow(name="trial", flow_run_name=named("{study} {trial} {arm} seed {seed}"))
    def run_trial(study: str, trial: int, arm: str, seed: int) -> dict[str, float]:
        return _run_trial(lambda links: perform(job, opened, claim, run, stop, links), run)

    opened, parameters = study, claim.parameters
    state = run_trial(study.name, claim.number, parameters["arm"], parameters["seed"], return_state=True)
    if state.is_cancelled():
        raise (StoppedError if stop.is_set() else BusyError)(state.message or study.name)
    state.result()


def _run_trial(perform_linked: Callable[[Mapping[str, str]], Row], run: Run) -> dict[str, float]:
    """The values of a trial, or the state that says that it is given back."""
    try:
        with turn(run.config, needs_gpu_to_measure):
            row = perform_linked({"prefect.flow_run_id": str(flow_run.id), **page_links(run.home)})
    except (BusyError, StoppedError) as error:
        return Cancelled(message=f"given back, not finished: {error}")  # type: ignore[return-value]
    except RuntimeError as error:
        if isinstance(error.__cause__, AlarmError):
            publish_alarm(run, read_alarms(run)[-1])
        raise
    link_to_mlflow(run)
    return dict(row.values)


@flow(name="sweep-worker", flow_run_name=named("{sweep} {size}"))
def sweep_worker(sweep: str = "paper", size: Size = "laptop", overrides: list[str] = []) -> None:  # noqa: B006
    """Work on a sweep from wherever a work pool starts this; trials are subflows; `ablate` with 0 workers watches.

    Machines that share no work folder need SIRI_STUDY_URL; they make trunks of their own.

    Args:
        sweep: Name of a sweep, such as paper, or a YAML file.
        size: Which of the sweep's sizes.
        overrides: Changes to all its trials, as in rollout.group_size=4.
    """
    for job in Job(sweep, size, find_home(), extra=tuple(overrides)).phases:
        job.enqueue(job.open_study())
        work(job, perform_as_flow)


if __name__ == "__main__":
    serve(perform_as_flow)
