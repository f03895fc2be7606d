"""The end of a process after SIGTERM or SIGINT: in order if it can, else by force after a set time.

A signal handler of Python waits for the main thread, which may be inside a call of a client. So a thread of its own
learns of the signal, through the descriptor that Python writes to at once.
"""

import faulthandler
import logging
import os
import signal
import sys
import threading
import traceback
from typing import Final

log = logging.getLogger(__name__)
EXIT_GAVE_UP: Final = 5
LIMIT_S: Final = 20.0  # until the settings are read
GIL_GRACE_S: Final = 2.0  # a call that holds the GIL stops that thread too; then the process ends with status 1
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Sets `stop` at a signal, and ends the process with status 5 where it still runs `limit_s` after it."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.limit_s = LIMIT_S

    def install(self) -> None:
        """Handle signals from now on; in the main thread only."""
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()

    def finish(self, status: int) -> int:
        """The exit status; after a signal the process ends here: clients may wait for servers when they are freed."""
        if not self.stop.is_set():
            return status
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)

    def _watch(self) -> None:
        while os.read(self._reader, 1)[0] not in SIGNALS:
            pass
        faulthandler.dump_traceback_later(self.limit_s + GIL_GRACE_S, exit=True)
        self.stop.set()
        threading.Event().wait(self.limit_s)
        log.critical(
            "The process should end within %g s of a signal (`worker.stop_s`). Found it at %s; it ends now; "
            "the next start goes on from what is committed.",
            self.limit_s,
            describe_main_thread(),
        )
        logging.shutdown()
        os._exit(EXIT_GAVE_UP)


def describe_main_thread() -> str:
    """Where the main thread is: its innermost calls, outermost first."""
    frames = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident or 0])
    return " > ".join(f"{frame.name} ({os.path.basename(frame.filename)}:{frame.lineno})" for frame in frames[-4:])
