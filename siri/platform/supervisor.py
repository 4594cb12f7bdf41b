"""One process that starts the parts, waits until they are well, restarts what dies, and leaves nothing running."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import FrameType

import psutil

from siri import terminal
from siri.errors import InputError
from siri.home import Home
from siri.platform import pages, parts, private, running
from siri.platform.last_words import last_words
from siri.platform.parts import Part, Settings
from siri.platform.running import Member, Running
from siri.processes import children, flow_lock, reaper

HEALTHY_SECONDS = 300.0
"""What the parts get to become well; a first start migrates two databases."""
GRACE_SECONDS = 10.0
"""Between asking a part to end and killing it."""
LONGEST_BACKOFF = 60.0
STEADY_SECONDS = 60.0
"""A part that has lived so long starts again at once when it dies."""
POLL_SECONDS = 0.5
MOST_READ = 100_000
"""Bytes of a log in which a part's last error is looked for."""
LOOK_SECONDS = 5.0
"""Between two looks for runs that have crashed or been paused."""
VAIN_SECONDS = 15.0
"""What is added to that after upkeep that failed, or found another one at it."""


class Child:
    """A part's process; when it dies it is started again, after a pause that doubles."""

    def __init__(self, part: Part, environment: Mapping[str, str], logs: Path) -> None:
        self.part = part
        self.environment = {**environment, **part.environment}
        self.log = logs / f"{part.name.replace(' ', '-')}.log"
        self.restarts = 0
        self.vain = 0
        """Starts since the part last lived for STEADY_SECONDS."""
        self.due = 0.0
        self.start()

    def start(self) -> None:
        """In a session of its own: a terminal's Ctrl-C reaches the supervisor alone."""
        if self.part.prepare is not None:
            self.part.prepare()
        self.began = time.monotonic()
        self.logged = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.part.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                start_new_session=True, cwd=self.part.directory,
            )  # fmt: skip

    def tend(self) -> bool:
        """Start a dead part again once its pause is over; whether anything has changed."""
        code = self.process.poll()
        if code is None:
            return False
        now = time.monotonic()
        if not self.due:
            self.kill()  # what a killed server has left holds its port
            self.vain = 0 if now - self.began > STEADY_SECONDS else self.vain + 1
            pause = min(2.0 ** (self.vain - 1), LONGEST_BACKOFF) if self.vain else 0.0
            self.due = now + pause
            say(f"{self.part.name} {self.last_words()}; it starts again in {pause:.0f} s ({self.log} says why)")
        if now < self.due:
            return False
        self.due = 0.0
        self.restarts += 1
        self.start()
        return True

    def last_words(self) -> str:
        """How a part that has ended did, with the last error of this start."""
        with self.log.open("rb") as log:
            log.seek(max(self.logged, self.log.stat().st_size - MOST_READ))
            said = log.read().decode(errors="replace").splitlines()
        return f"ended with code {self.process.poll()}: {last_words(said, self.log.parent)}"

    def ask(self) -> None:
        """Ask the part to end."""
        with suppress(ProcessLookupError):
            self.process.terminate()

    def kill(self) -> None:
        """Kill whatever is left of the part's session."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def describe(self) -> Member:
        """The part as it runs."""
        return Member(self.part.name, self.process.pid, self.restarts, self.part.page, self.part.health)


class Supervisor:
    """The children of one work folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stop = Event()
        self.servers: list[Child] = []
        self.workers: list[Child] = []
        self.ready = False
        self.upkeep: subprocess.Popen[bytes] | None = None
        self.seen: set[str] = set()
        """What upkeep has been started for: ids of states, names of signs."""
        self.looked = 0.0
        self.logs = settings.home.platform / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    def run(self) -> bool:
        """Start everything and tend it until asked to stop; False when it did not become well."""
        self._listen()
        reaper.guard()
        self.environment = parts.environment(self.settings)
        self.auth = self.environment[private.CLIENT_AUTH]
        try:
            self.servers = self._start(parts.servers(self.settings))
            if not self._wait_for(self.servers):
                return self.stop.is_set()
            pages.check(pages.served(self.settings.home))
            if not self._deploy():
                return self.stop.is_set()
            self.workers = self._start(parts.workers(self.settings))
            if not self._wait_for(self.workers):
                return self.stop.is_set()
            self._announce()
            while not self.stop.wait(POLL_SECONDS):
                self._tend()
                self._take_up()
            return True
        finally:
            self._end()

    def _listen(self) -> None:
        """Hear SIGINT, SIGTERM and SIGHUP, also where they were ignored or blocked when this process began."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            signal.signal(number, self._asked)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.stop.set()

    def _start(self, wanted: Iterable[Part]) -> list[Child]:
        started = [Child(part, self.environment, self.logs) for part in wanted]
        self._write([*self.servers, *started])
        return started

    def _wait_for(self, waiting: list[Child]) -> bool:
        """Wait until parts are well; False when asked to stop, when one ends or it takes too long, which is said."""
        deadline = time.monotonic() + HEALTHY_SECONDS
        names = {child.part.name for child in waiting}
        say(f"waiting for {', '.join(sorted(names))}; a first start makes databases")
        while not self.stop.wait(POLL_SECONDS):
            ended = next((child for child in waiting if child.process.poll() is not None), None)
            if ended is not None:
                say(f"{ended.part.name} {ended.last_words()} ({ended.log})")
                return False
            self._tend()
            ill = [name for name, well in running.health(self._describe(waiting), self.auth).items() if not well]
            if not ill:
                say(f"{', '.join(sorted(names))}: well")
                return True
            if time.monotonic() > deadline:
                say(f"{', '.join(ill)}: not well after {HEALTHY_SECONDS:.0f} s; {self.logs} says why")
                return False
        return False

    def _deploy(self) -> bool:
        """Bring the server to where it can run our flows."""
        path = self.logs / "deploy.log"
        with path.open("wb") as log:
            command = children.command("flows.deploy")
            deploying = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
        while deploying.poll() is None and not self.stop.wait(POLL_SECONDS):
            self._tend()
        if self.stop.is_set():
            deploying.kill()
            deploying.wait()
            return False
        if deploying.returncode != 0:
            said = path.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
            say(f"deploying failed: {said[-1]} ({path})")
        return deploying.returncode == 0

    def _tend(self) -> None:
        changed = [child.tend() for child in (*self.servers, *self.workers)]
        if any(changed):
            self._write([*self.servers, *self.workers])

    def _take_up(self) -> None:
        """Have crashed, killed and paused runs seen to now: events are lost with their server, schedules come late."""
        if self.upkeep is not None:
            if self.upkeep.poll() is None:
                return
            if self.upkeep.returncode != 0:
                self.seen.clear()  # it failed: try again, but not soon, since it may fail for long
                self.looked = time.monotonic() + VAIN_SECONDS
            self.upkeep = None
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        found = running.unattended(self.settings.prefect, self.auth) | {
            sign.name for sign in flow_lock.ended(self.settings.home)
        }
        if found - self.seen:
            self.seen |= found
            command = children.command("flows.maintenance")
            with (self.logs / "maintenance.log").open("ab") as log:
                self.upkeep = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
                )

    def _describe(self, started: list[Child]) -> Running:
        members = tuple(child.describe() for child in started)
        asking = parts.generated(self.settings)
        return Running(os.getpid(), self.settings.prefect, self.settings.mlflow, self.ready, members, asking)

    def _write(self, started: list[Child]) -> None:
        running.write(self.settings.home, self._describe(started))

    def _announce(self) -> None:
        self.ready = True
        self._write([*self.servers, *self.workers])
        show(self.settings.home, self._describe(self.servers))
        say("up; Ctrl-C or `siri down` ends it all")

    def _end(self) -> None:
        """Workers first: without a server they would wait for it. Then MLflow, the dashboard, Prefect."""
        say("going down")
        for group in ([*self.workers], *([child] for child in reversed(self.servers))):
            _end_together(group)
        _end_marked()


def _end_together(ending: list[Child]) -> None:
    for child in ending:
        child.ask()
    deadline = time.monotonic() + GRACE_SECONDS
    for child in ending:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
        child.kill()


def _end_marked() -> None:
    """What workers have left: flow runs in sessions of their own, say."""
    left = reaper.marked(os.environ[reaper.MARK])
    left = [process for process in left if process.pid != os.getpid()]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=GRACE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def say(line: str) -> None:
    """One line to whoever watches."""
    terminal.say(line)


def show(home: Home, up: Running) -> None:
    """A line for each part, with the link that logs a browser in where it asks for the generated password."""
    for member in up.members:
        if member.name != "mlflow" or not running.views(home):
            say(f"{member.name:<17} {link(home, up, member) or ''}".rstrip())
    asked = " (its user and password: siri env)" if "mlflow" in up.generated else ""
    for name, address in running.views(home).items():
        say(f"mlflow, {name:<9} {address}{asked}")


def link(home: Home, up: Running, member: Member) -> str | None:
    """What people open. A password that the user has set is not shown: the page asks for it."""
    if member.page is None:
        return None
    if member.name == "prefect":
        shown = member.name in up.generated and not _is_journal()
        return pages.link(member.page, private.read(home) if shown else None)
    if member.name not in up.generated:
        return member.page
    if member.name == "mlflow":
        return f"{member.page} (its user and password: siri env)"
    return f"{member.page}/login" + ("" if _is_journal() else f"#{private.password(home)}")


def _is_journal() -> bool:
    """Whether stdout is systemd's journal, which others may read: no place for a password."""
    out = os.fstat(1)
    return os.environ.get("JOURNAL_STREAM") == f"{out.st_dev}:{out.st_ino}"


def up(settings: Settings) -> bool:
    """Run the platform of a work folder in this process until asked to stop; False when it did not come up.

    Where it is up already, say so. Raises InputError for what stands against it.
    """
    with running.claimed(settings.home) as ours:
        if not ours:
            found = running.find(settings.home)
            if found is None:
                raise InputError(f"home={settings.home.root}: another `siri up` is just starting or ending here")
            say(f"up already, process {found.pid}")
            show(settings.home, found)
            return True
        parts.check(settings)
        return Supervisor(settings).run()
