"""What can be wrong with an installation, a work folder and the servers it talks to, and how to fix it."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

from packaging.requirements import Requirement

from siri.errors import InputError
from siri.home import Home, check_writable
from siri.platform.last_words import check_database, databases
from siri.processes.probe import ask
from siri.redaction import redact
from siri.store.remote import open_depot
from siri.store.replicated import STORE_URL, open_store

LEAST_FREE = 2 * 1024**3
"""Bytes below which the disk is worth a warning: a laptop run with its evaluations takes some 50 MB."""
SERVER_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Literal["ok", "warn", "wrong"]
    found: str
    fix: str = ""


def diagnose(home: Home) -> list[Finding]:
    """All findings, the installation first."""
    place = (_check_home(home), _check_store(home), *_check_databases(home), *_check_shared(), _check_disk(home))
    findings = (*_check_packages(), _check_torch(), *place, *_check_servers(home))
    return [replace(finding, found=redact(finding.found), fix=redact(finding.fix)) for finding in findings]


def _check_packages() -> Iterator[Finding]:
    """Every requirement of this package against what is installed; one line if all is well."""
    bad = 0
    for text in requires("siri-rl") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            bad += 1
            yield Finding(
                requirement.name,
                "wrong",
                f"{found or 'not installed'}, needs {requirement.specifier}{_consequence(requirement.name)}",
                f"pip install -c constraints.txt '{requirement}'",
            )
    if not bad:
        stack = ", ".join(f"{name} {_installed(name)}" for name in ("prefect", "mlflow", "fastapi", "transformers"))
        yield Finding("packages", "ok", f"python {sys.version.split()[0]}, {stack}")


def _consequence(package: str) -> str:
    return " (with newer ones every Prefect flow fails, though `pip check` passes)" if package == "fastapi" else ""


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _check_torch() -> Finding:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only"
    return Finding("torch", "ok", f"{torch.__version__}, {device}, {os.cpu_count()} cores")


def _check_home(home: Home) -> Finding:
    """Whether the work folder can be written, by writing."""
    try:
        check_writable(home)
    except InputError as error:
        fix = f"chown or chmod it (you are user {os.geteuid()}), or name another work folder with --home or SIRI_HOME"
        return Finding("home", "wrong", str(error), fix)
    return Finding("home", "ok", f"{home.root.resolve()} can be written")


def _check_store(home: Home) -> Finding:
    if not home.store.exists():
        return Finding("store", "ok", f"{home.store} is made by the first run")
    try:
        entries = list(open_store(home).entries())
    except InputError as error:
        return Finding(
            "store", "wrong", str(error), "name another work folder with --home, or use the SIRI that made it"
        )
    corrupt = list((home.store / "corrupt").iterdir())
    if corrupt:
        fix = "nothing is needed, they are made again; `siri snapshots gc` frees their room"
        return Finding("store", "warn", f"{len(entries)} entries, {len(corrupt)} corrupt ones moved aside", fix)
    return Finding("store", "ok", f"{len(entries)} entries in {home.store}")


def _check_databases(home: Home) -> Iterator[Finding]:
    """Whether the servers of this version could start on the work folder's databases."""
    for package, file in databases(home).items():
        try:
            check_database(package, file)
        except InputError as error:
            yield Finding(
                f"{package}'s database", "wrong", str(error), f"pip install -U {package}, or move {file} away"
            )


def _check_shared() -> Iterator[Finding]:
    """The store that machines share, if there is one."""
    url = os.environ.get(STORE_URL)
    if not url:
        return
    try:
        depot = open_depot(url)
        yield Finding("shared store", "ok", f"{len(depot.known())} entries in {depot.shown}")
    except InputError as error:
        fix = f"see to it that it answers, or unset {STORE_URL}; `siri sync` sends later what it lacks"
        yield Finding("shared store", "wrong", str(error), fix)


def _check_disk(home: Home) -> Finding:
    folder = home.root.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 1024**3:.1f} GiB free in {folder}"
    return Finding("disk", "ok" if free > LEAST_FREE else "warn", found, "" if free > LEAST_FREE else "free some room")


def _check_servers(home: Home) -> Iterator[Finding]:
    """The servers that the environment names; without any, flows and records need none."""
    tracking = home.tracking_uri
    if tracking.startswith("http"):
        fix = "start it, or unset MLFLOW_TRACKING_URI; `siri sync` brings it up to date later"
        yield _check_url("MLflow", f"{tracking.rstrip('/')}/health", fix)
    else:
        yield Finding("MLflow", "ok", f"no server, records go to {tracking}")
    api = os.environ.get("PREFECT_API_URL")
    if api:
        yield _check_url("Prefect", f"{api.rstrip('/')}/health", "start it, or unset PREFECT_API_URL")
    else:
        yield Finding("Prefect", "ok", "no server named, flows bring their own")


def _check_url(subject: str, url: str, fix: str) -> Finding:
    try:
        status = ask(url, SERVER_SECONDS).status_code
    except OSError as error:
        return Finding(subject, "wrong", f"{url}: {error}", fix)
    if status >= HTTPStatus.BAD_REQUEST:
        return Finding(subject, "wrong", f"{url} answers {status}", fix)
    return Finding(subject, "ok", f"{url} answers {status}")
