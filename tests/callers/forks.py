"""Children of the test's own process."""

import os
import traceback
import warnings
from collections.abc import Callable


def in_a_child(function: Callable[[], object]) -> int:
    """Run *function* in a fork of this process; its exit code, 0 when all went well."""
    with warnings.catch_warnings():
        # From 3.12 on Python warns of forks beside threads, which is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
