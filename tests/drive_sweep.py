"""A worker of a sweep whose runs learn at every step: `python -m tests.drive_sweep JOB`."""

from siri.methods import METHODS
from sweeps.worker import perform_plainly, serve
from tests.odd import ODD

if __name__ == "__main__":
    METHODS["siri"] = ODD
    serve(perform_plainly)
