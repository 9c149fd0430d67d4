"""A small program with two hot functions of known cost, profiled by the Pyroscope SDK for Python.

Usage: app.py URL SECONDS [SERVICE]
"""

import sys
import time

import pyroscope


def parse_orders(units):
    total = 0
    for i in range(units * 1000):
        total += i % 7
    return total


def render_report(units):
    total = 0
    for i in range(units * 1000):
        total += i % 7
    return total


def main(url, seconds, service="demo-python"):
    pyroscope.configure(
        application_name=service, server_address=url, sample_rate=100, oncpu=True, tags={"region": "eu-demo"}
    )
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        with pyroscope.tag_wrapper({"endpoint": "/orders"}):
            parse_orders(30)
        with pyroscope.tag_wrapper({"endpoint": "/report"}):
            render_report(10)
    pyroscope.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
