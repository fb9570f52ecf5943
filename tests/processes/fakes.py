"""Children that do no work: they say what a test wants them to, and write down what they see.

The directory FAKES holds one file `facts` to which all append JSON lines, and may hold a file named after a role or a
slot with words that change how such a child behaves.
"""

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

FAKES = Path(os.environ["FAKES"])
FACTS = os.open(FAKES / "facts", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


# What an app may do as it is imported, and the code there was at that time.
for word in (FAKES / "import").read_text().split() if (FAKES / "import").exists() else ():
    if word == "fails" and os.environ["CHICORYD_ROLE"] != "check":
        raise RuntimeError("this app is broken")
    if word == "thread":
        threading.Thread(target=time.sleep, args=(600,), name="busybody", daemon=True).start()
    if word == "socket":
        SOCKET = socket.create_server(("127.0.0.1", 0))
CODE = (FAKES / "code").read_text() if (FAKES / "code").exists() else ""


def note(**facts):
    os.write(FACTS, json.dumps(facts).encode() + b"\n")


def check():
    """The check child: exits with the number in the file `check`, if there is one."""
    note(who="check", flags=sys.argv[1:], config=os.environ["CHICORY_CONFIG"])
    told = FAKES / "check"
    if told.exists():
        print("fake check: refused", file=sys.stderr)
        return int(told.read_text())
    return 0


def child():
    """A server, scheduler or worker."""
    name = os.environ["CHICORYD_NAME"]
    slot = name.split(":")[3]
    words = set()
    for file in (FAKES / os.environ["CHICORYD_ROLE"], FAKES / slot):
        if file.exists():
            words |= set(file.read_text().split())

    def say(what, **facts):
        note(who=slot, what=what, pid=os.getpid(), name=name, at=time.monotonic(), **facts)

    note(
        who=slot,
        what="start",
        pid=os.getpid(),
        name=name,
        sid=os.getsid(0),
        parent=os.getppid(),
        code=CODE,
        settings=Path(os.environ["CHICORYD_SETTINGS"]).read_text(),
        title=Path("/proc/self/comm").read_text().strip(),
        ignores_pipes=signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN,
        sigint_ignored=signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        descriptors=sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
        private=[key for key in os.environ if key.startswith(("NOTIFY", "LISTEN", "WATCHDOG"))],
    )
    line = socket.socket(fileno=int(os.environ["CHICORYD_LIFELINE"]))
    line.setblocking(False)

    def send(**message):
        line.sendall(json.dumps(message).encode() + b"\n")

    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    if "fails" in words:
        print(f"fake {slot}: cannot boot", file=sys.stderr)
        return 1
    if "raises" in words:
        raise RuntimeError(f"{slot} has a bug")
    if "grandchild" in words:
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        say("grandchild", child=other.pid)
    if "runaway" in words:
        # In a session of its own, and so is its child: no signal to a group reaches them.
        script = "setsid sleep 600 & echo $!; exec sleep 600"
        other = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
        say("runaway", children=[other.pid, int(other.stdout.readline())])
    if "orphan" in words:
        # Its parent ends at once, so that whoever adopts it must reap it.
        script = "import subprocess, sys; print(subprocess.Popen(['sleep', '0.05'], stdout=2).pid)"
        adopted = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        say("orphan", child=int(adopted))
    if "logs" in words:
        from chicory.config import load_config
        from chicory.journal import reopen_log, start_logging

        start_logging(load_config())
        logging.getLogger("fakes").info("%s begins", name)
    if "mute" not in words:
        send(t="ready")
        say("ready")

    heard = b""
    beats = 0
    numbers = count()
    while True:
        wait = 0.01 if "beats" in words else 0.001 if "logs" in words else None
        ready, _, _ = select.select([line, woken], [], [], wait)
        if "logs" in words:
            number = next(numbers)
            logging.getLogger("fakes").info("%s number %d %s", name, number, "x" * (number % 300))
            if not ready:
                continue
        if not ready:
            beats += 1
            send(t="beat", lag=0.001, running=3, rss=20 * 2**20, fetched=beats)
            if beats % 50 == 0:
                say("beats", count=beats)
            continue
        if woken in ready:
            say("signal", number=woken.recv(100)[0])
            if "stubborn" not in words:
                return 0
        if line not in ready:
            continue
        data = line.recv(65536)
        if not data:
            say("orphaned")
            return 0
        *lines, heard = (heard + data).split(b"\n")
        for message in map(json.loads, lines):
            say("heard", message=message)
            if message["t"] == "reopen" and "logs" in words:
                reopen_log()
            if message["t"] == "stop" and "stubborn" not in words:
                while (FAKES / "linger").exists():  # tasks that take their time
                    time.sleep(0.01)
                send(t="bye", report={"finished": 5})
                if "logs" in words:
                    say("logged", numbers=next(numbers))
                say("leaves")
                return 0
