"""kill -9 under load: every acknowledged profile is stored, once."""

import http.client
import threading
import time

from harness import CPU, pprof, push_request

ROUNDS = 20
WRITERS = 32


def test_nothing_acknowledged_is_lost_or_doubled_by_kill_9(new_server):
    server = new_server("-self-profiling.disable-push")
    acknowledged, lock, slowest = {}, threading.Lock(), 0.0
    number = [0]

    def write(stop):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        while not stop.is_set():
            with lock:
                number[0] += 1
                mine = number[0]
            # Each profile has a distinct function and pod value, so each can be counted.
            document = pprof({(f"f{mine}", "main"): mine}, time_nanos=time.time_ns())
            labels = {"__name__": "process_cpu", "service_name": f"app{mine % 3}", "pod": f"p{mine % 7}"}
            body = push_request(labels, document)
            try:
                connection.request("POST", "/push.v1.PusherService/Push", body, {"Content-Type": "application/proto"})
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    with lock:
                        acknowledged[f"f{mine}"] = mine
                    if mine % 5 == 0:  # the client missed the reply and sends it again
                        connection.request(
                            "POST", "/push.v1.PusherService/Push", body, {"Content-Type": "application/proto"}
                        )
                        connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
                if stop.wait(0.02):
                    return
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

    for round in range(ROUNDS):
        stop = threading.Event()
        threads = [threading.Thread(target=write, args=(stop,)) for _ in range(WRITERS)]
        for thread in threads:
            thread.start()
        time.sleep(0.7 + 0.07 * (round % 5))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        slowest = max(slowest, server.start())

    graph = server.flamegraph("{}", CPU, maxNodes=1_000_000)
    counted = {path[-1]: own for path, (_, own) in graph.items() if path and own}
    lost = {name for name, value in acknowledged.items() if counted.get(name, 0) < value}
    doubled = {name for name, value in counted.items() if value > int(name[1:])}
    assert len(acknowledged) > ROUNDS * 10, "the load was too small to show anything"
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged profiles are lost: {sorted(lost)[:5]}"
    assert not doubled, f"{len(doubled)} profiles are counted twice: {sorted(doubled)[:5]}"
    print(f"{len(acknowledged)} acknowledged over {ROUNDS} kills; slowest start {slowest:.2f} s")
