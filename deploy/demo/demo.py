"""Starts the server, waits until it is ready, and starts two programs that send it profiles.

Usage: demo.py BINARY [SERVER FLAGS …]; Ctrl-C ends everything.
"""

import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).parent
PORT_FLAG = "server.http-listen-port="
READY_SECONDS = 20


def main(scratch, binary, *flags):
    port = next((flag.split("=")[1] for flag in flags[::-1] if flag.lstrip("-").startswith(PORT_FLAG)), "4040")
    url = f"http://localhost:{port}"
    children = [subprocess.Popen([binary, "server", *flags])]
    try:
        end = time.monotonic() + READY_SECONDS
        while not is_ready(url):
            if children[0].poll() is not None or time.monotonic() > end:
                break
            time.sleep(0.1)
        # Another server on the same port may have answered: ours has then ended, and printed why.
        time.sleep(0.2)
        if children[0].poll() is not None:
            return children[0].returncode
        children.append(subprocess.Popen([sys.executable, HERE / "app.py", url, "1e9"]))
        print(f"\nOpen {url}/explore: services pyrograph, demo-python, demo-go (after about 15 s)\n", flush=True)
        program = pathlib.Path(scratch, "demo-go")
        if not shutil.which("go"):
            print("go is not installed: the Go program is left out", file=sys.stderr)
        elif subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "go").returncode == 0:
            children.append(subprocess.Popen([program, url, "1e9"]))
        else:
            print("the Go program cannot be built and is left out", file=sys.stderr)
        return children[0].wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for child in children[::-1]:
            child.terminate()


def is_ready(url):
    try:
        urllib.request.urlopen(url + "/ready", timeout=1).close()
        return True
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as directory:
        sys.exit(main(directory, *sys.argv[1:]))
