"""Monitors in Prefect: an alarm is an event and an artifact; a pause waits for the UI, where there is one."""

from prefect import pause_flow_run
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from flows.naming import artifact_key
from flows.notify import ACTION
from siri import tracking
from siri.errors import AlarmError
from siri.markdown import plain
from siri.monitoring.monitored_run import read_alarms
from siri.monitoring.monitors import Alarm
from siri.runs.run import Run
from siri.schedule import Stage

PAUSE_SECONDS = 24 * 3600
"""How long a paused run waits for somebody; it fails then, and the same run started again goes on."""


def publish_alarm(run: Run, alarm: Alarm) -> None:
    """Tell Prefect, for automations and for people, and MLflow."""
    tracking.tag_alarm(run, alarm)
    resource = {"prefect.resource.id": f"siri.run.{run.id}", "prefect.resource.name": run.name, ACTION: alarm.action}
    payload = {"guard": alarm.guard, "action": alarm.action, "step": alarm.step, "message": alarm.message}
    emit_event(f"siri.alarm.{alarm.guard}", resource, payload=payload)
    key = artifact_key(f"alarm-{alarm.guard.replace('_', '-')}", run.name)
    text = f"# {plain(run.name)}\n\n**{alarm.action}**, step {alarm.step}: {plain(alarm.message)}\n"
    create_markdown_artifact(text, key=key, description=f"guard {alarm.guard}")


def pause_if_asked(run: Run, stage: Stage, began: float) -> None:
    """Where a stage ends: wait to be resumed if a guard asked for a pause since `began`, in seconds since the epoch.

    Without a server there is nobody to resume: the run stops then, and the same command goes on.
    """
    asked = [alarm for alarm in read_alarms(run) if alarm.action == "pause" and alarm.time >= began]
    if not asked:
        return
    if PREFECT_API_URL.value() is None:
        raise AlarmError(f"{run.name} behind {stage.name}, to pause, by the {asked[-1]}")
    pause_flow_run(timeout=PAUSE_SECONDS, key=f"{stage.name}-{run.id}")
