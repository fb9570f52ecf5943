"""The mistakes that lose or double tasks.  Each was made somewhere once, and each must make a test fail.

What is right is quoted as it stands in the source, so that a bug that no longer fits the source is noticed.
"""

from tests.planted.bug import bug

REDIS = "chicory/brokers/redis"
SCRIPTS = f"{REDIS}/scripts"
RABBITMQ = "chicory/brokers/rabbitmq"

BUGS = (
    bug(
        "the fence is dropped: whoever finishes late is believed",
        "tests/contract/test_holding.py -k 'm5 and redis'",
        (
            f"{SCRIPTS}/settle.lua",
            "local ours = all or item > count or redis.call('XDEL', KEYS[3], ids[item]) == 1",
            "local ours = true",
        ),
    ),
    bug(
        "what a dead worker held is looked for at the beginning of all that is pending, and never further on",
        "tests/faults/test_reclaim.py",
        (
            f"{SCRIPTS}/reclaim.lua",
            """\
            entries = redis.call('XPENDING', KEYS[i], ARGV[1], '-', '+', left, name)
""",
            """\
            for _, one in ipairs(redis.call('XPENDING', KEYS[i], ARGV[1], '-', '+', left)) do
              if one[2] == name then
                entries[#entries + 1] = one
              end
            end
""",
        ),
    ),
    bug(
        "the ack goes before the result",
        "tests/trio/test_settling.py",
        (
            "chicory/worker/settle.py",
            """\
            if records:
                await self._backend.store(records)
            return await self._consumer.settle([replace(one, record=None) for one in batch])
""",
            """\
            held = await self._consumer.settle([replace(one, record=None) for one in batch])
            if records:
                await self._backend.store(records)
            return held
""",
        ),
    ),
    bug(
        "a limit is a MAXLEN: a full queue forgets its oldest",
        "tests/contract/test_publishing.py -k 'm10 and redis'",
        (f"{SCRIPTS}/publish.lua", "if room and not at and room <= 0 and not holder then", "if false then"),
        (
            f"{SCRIPTS}/publish.lua",
            "redis.call('XADD', KEYS[3], '*', 'data', ARGV[i + 1], 'task_id', ARGV[i])",
            "redis.call('XADD', KEYS[3], 'MAXLEN', limit or 100000, '*', 'data', ARGV[i + 1], 'task_id', ARGV[i])",
        ),
    ),
    bug(
        "nobody asks what was delivered into a broken connection",
        "tests/redis/test_lost_replies.py -k delivery",
        (f"{REDIS}/reader.py", "self.stash += await self.unknown(known)", "await self.unknown(known)"),
    ),
    bug(
        "a worker does not compare notes with the broker",
        "tests/redis/test_lost_replies.py -k nobody_knows",
        (f"{REDIS}/consumer.py", "        return lost\n", "        return []\n"),
    ),
    bug(
        "a lease is renewed without looking whether it was taken away",
        "tests/contract/test_holding.py -k 'm3 and redis'",
        (
            f"{SCRIPTS}/renew.lua",
            "if ARGV[3] ~= '1' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then",
            "if false then",
        ),
    ),
    bug(
        "a worker that leaves is deleted with what it still holds",
        "tests/contract/test_holding.py -k 'leaving and redis'",
        (f"{SCRIPTS}/leave.lua", "if #pending > 0 then", "if false then"),
    ),
    bug(
        "a dead worker is deleted with what was not yet given back",
        "tests/contract/test_holding.py -k 'piece_by_piece and redis'",
        (f"{SCRIPTS}/reclaim.lua", "if consumer[4] > #entries then", "if false then"),
    ),
    bug(
        "a group begins at what comes next, and not with what is there",
        "tests/contract/test_publishing.py -k redis",
        (f"{REDIS}/consumer.py", 'self._group, "0", "MKSTREAM")', 'self._group, "$", "MKSTREAM")'),
    ),
    bug(
        "a publish that got no answer is sent again as if it were another",
        "tests/redis/test_lost_replies.py -k publish",
        (
            f"{REDIS}/outbox.py",
            """\
        if self.doubtful is not None:
            return self.doubtful
""",
            """\
        if self.doubtful is not None:
            self.number += 1
            self.doubtful.number = self.number
            return self.doubtful
""",
        ),
    ),
    bug(
        "an outcome that got no answer is sent again as if it were another",
        "tests/redis/test_lost_replies.py -k settlement",
        (
            f"{REDIS}/settler.py",
            "lambda connection: settle.run(connection, call.keys, call.args, timeout=self._timeout)",
            "lambda connection: settle.run(connection, call.keys, self._renumbered(call), timeout=self._timeout)",
        ),
        (
            f"{REDIS}/settler.py",
            "    def _call(self",
            """\
    def _renumbered(self, call):
        self._number += 1
        return [self._number, *call.args[1:]]

    def _call(self""",
        ),
    ),
    bug(
        "deliveries that vanished are not counted",
        "tests/redis/test_reconnecting.py -k deleted",
        (f"{SCRIPTS}/reclaim.lua", "vanished = vanished + 1", "vanished = vanished"),
    ),
    bug(
        "a worker beats from a thread, whether its loop turns or not",
        "tests/faults/test_hang.py -k shown",
        (
            "chicory/worker/serve.py",
            "nursery.start_soon(beat, line, worker.config.heartbeat_interval, facts)",
            "Thread(target=_beat_on, args=(line, worker), daemon=True).start()",
        ),
        (
            "chicory/worker/serve.py",
            """\
def _report(""",
            """\
def _beat_on(line, worker):
    while True:
        time.sleep(worker.config.heartbeat_interval)
        line.send("beat", state="working")


def _report(""",
        ),
        (
            "chicory/worker/serve.py",
            """\
import os
""",
            """\
import os
import time
from threading import Thread
""",
        ),
    ),
    bug(
        "a reload goes on although the first new worker failed",
        "tests/unit/test_fleet.py -k whatever_goes_wrong",
        (
            "supervisor/chicoryd/reload.py",
            'return refuse(fleet, f"{slot.name} of generation {roll.number} {why}")',
            "return fleet, []",
        ),
    ),
    bug(
        "a new worker takes its seat before it is ready",
        "tests/unit/test_fleet.py -k one_by_one",
        ("supervisor/chicoryd/replace.py", " or new.state is not State.READY or new.retired", " or new.retired"),
    ),
    bug(
        "RabbitMQ: a delivery is acknowledged before the copy of it has arrived",
        "tests/rabbitmq/test_crashes.py -k 'retried or dead'",
        (
            f"{RABBITMQ}/consumer.py",
            """\
        await self._conclude(done)
        if moving:
""",
            """\
        await self._conclude(done)
        self._acknowledge([self._held[one.delivery.receipt] for one in moving])
        if moving:
""",
        ),
    ),
    bug(
        "RabbitMQ: whoever finishes late is believed",
        "tests/contract/test_holding.py -k 'm5 and rabbitmq'",
        (
            f"{RABBITMQ}/consumer.py",
            "return held is not None and held.acked == delivery.acked and (held.acked or self._lost is None)",
            "return held is not None",
        ),
    ),
    bug(
        "RabbitMQ: what no queue took is taken for published",
        "tests/rabbitmq/test_faults.py -k declared_again",
        ("chicory/links/amqp_frames.py", "bytes((len(key),)), key, _MANDATORY))", r'bytes((len(key),)), key, b"\0"))'),
    ),
    bug(
        "RabbitMQ: a delivery that killed its worker is not charged",
        "tests/contract/test_holding.py -k 'm6 and rabbitmq'",
        (f"{RABBITMQ}/consumer.py", "died = delivered.redelivered or RENEWED in headers", "died = False"),
    ),
)
