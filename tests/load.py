"""Writers that send until acknowledged, each profile with a distinct function, and readers that check each answer."""

import bisect
import http.client
import itertools
import json
import threading
import time

from harness import CPU, now_millis, paths, pprof, push_request

WRITERS, READERS = 6, 2
# This many seconds after its acknowledgement, a push is in every answer that is not flagged.
VISIBLE = 25.0


class Load:
    def __init__(self, cluster):
        self.cluster, self.stop, self.lock = cluster, threading.Event(), threading.Lock()
        self.numbers = itertools.count(1)
        # By function: its value, the time of the first sending, the time of the acknowledgement.
        self.sent, self.began, self.acknowledged = {}, {}, {}
        self.wrong, self.answers = [], {"good": 0, "flagged": 0, "refused": 0}
        # (end, begin, port) of each acknowledged push, and of each fresh answer: one that is not flagged. A fresh answer
        # begins when its newest push was sent, or when it was queried, whichever is earlier.
        self.pushes, self.fresh = [], []
        self.threads = [threading.Thread(target=self.write, args=(seed,)) for seed in range(WRITERS)]
        self.threads += [threading.Thread(target=self.ask, args=(seed,)) for seed in range(READERS)]
        for thread in self.threads:
            thread.start()

    def write(self, seed):
        turn = seed
        while not self.stop.is_set():
            number = next(self.numbers)
            name = f"f{number}"
            document = pprof({(name, "main"): number}, time_nanos=time.time_ns())
            labels = {"__name__": "process_cpu", "service_name": f"app{number % 10}", "pod": f"p{number % 7}"}
            body = push_request(labels, document)
            self.sent[name], self.began[name] = number, time.monotonic()
            # A client repeats a push without a reply, at the next distributor.
            while True:
                turn += 1
                servers = self.cluster.of("distributor")
                if self.send(servers[turn % len(servers)], body):
                    with self.lock:
                        self.acknowledged[name] = time.monotonic()
                    break
                if self.stop.wait(0.3):
                    return
            self.stop.wait(0.02)

    def send(self, server, body):
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.request("POST", "/push.v1.PusherService/Push", body, {"Content-Type": "application/proto"})
            if connection.getresponse().status != 200:
                return False
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        with self.lock:
            self.pushes.append((time.monotonic(), began, server.port))
        return True

    def ask(self, seed):
        turn = seed
        while not self.stop.wait(0.5):
            turn += 1
            servers = self.cluster.of("querier")
            self.check(servers[turn % len(servers)])

    def check(self, server):
        """Checks one answer: profiles missing or counted twice without a flag are wrong."""
        began = time.monotonic()
        with self.lock:
            due = {name for name, at in self.acknowledged.items() if at < began - VISIBLE}
        try:
            counted, flag = graph(server)
        except (OSError, http.client.HTTPException, RuntimeError):
            self.answers["refused"] += 1
            return
        ended = time.monotonic()
        doubled = {name: value for name, value in counted.items() if value != self.sent.get(name)}
        lost = due - counted.keys() if not flag else set()
        self.answers["flagged" if flag else "good"] += 1
        if doubled or lost:
            self.wrong.append((time.strftime("%H:%M:%S"), server.port, len(lost), sorted(lost)[:5], sorted(doubled.items())[:5]))
        if not flag and counted:
            newest = max(self.began.get(name, 0.0) for name in counted)
            with self.lock:
                self.fresh.append((ended, min(began, newest), server.port))

    def recovery(self, since, patience=90):
        """The `Recovery` of pushes and queries that began after `since`."""
        until = time.monotonic() + patience
        while True:
            pushed = self.first(self.pushes, "distributor", since)
            answered = self.first(self.fresh, "querier", since)
            if None not in (*pushed, *answered):
                return Recovery(min(pushed), max(pushed), min(answered), max(answered))
            assert time.monotonic() < until, f"not served again {patience} s later: pushes {pushed}, fresh answers {answered}"
            time.sleep(0.05)

    def first(self, events, role, since):
        """For each server of the role, the seconds from `since` to the end of its first event that began later."""
        with self.lock:
            later = events[bisect.bisect(events, (since,)) :]
        ends = {}
        for ended, began, port in later:
            if began > since:
                ends.setdefault(port, ended - since)
        return [ends.get(server.port) for server in self.cluster.of(role)]

    def resent_longest(self):
        """The longest time between the first sending of a push and its acknowledgement, in seconds."""
        return max(at - self.began[name] for name, at in self.acknowledged.items())

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)


class Recovery:
    """Seconds until the first and until each distributor acknowledged a push; the same for queriers and fresh answers."""

    def __init__(self, push, every_push, answer, every_answer):
        self.push, self.every_push, self.answer, self.every_answer = push, every_push, answer, every_answer
        self.seconds = max(every_push, every_answer)

    def __str__(self):
        return (
            f"pushes after {self.push:.1f} s (by every distributor {self.every_push:.1f} s), "
            f"fresh answers after {self.answer:.1f} s (from every querier {self.every_answer:.1f} s)"
        )


def graph(server):
    """({function: own value}, the header about missing objects) of a query over all data."""
    query = {
        "profileTypeID": CPU,
        "labelSelector": "{}",
        "start": now_millis() - 3_600_000,
        "end": now_millis() + 60_000,
        "maxNodes": 1_000_000,
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
    try:
        path = "/querier.v1.QuerierService/SelectMergeStacktraces"
        connection.request("POST", path, json.dumps(query), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {body[:300]!r}")
        flag = response.getheader("x-pyrograph-partial") or response.getheader("x-pyrograph-stale")
        found = paths(json.loads(body)["flamegraph"])
        return {path[-1]: own for path, (_, own) in found.items() if path and own}, flag
    finally:
        connection.close()
