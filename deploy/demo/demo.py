"""Starts the server, waits until it is ready, and starts two programs that send it profiles.

Usage: demo.py BINARY [SERVER FLAGS …]; everything ends with Ctrl-C.
"""

import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).parent
URL = "http://localhost:4040"


def main(binary, *flags):
    children = [subprocess.Popen([binary, "server", *flags])]
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(URL + "/ready", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                if children[0].poll() is not None:
                    return children[0].returncode
                time.sleep(0.1)
        children.append(subprocess.Popen([sys.executable, HERE / "app.py", URL, "1e9"]))
        if shutil.which("go"):
            children.append(subprocess.Popen(["go", "run", ".", URL, "1e9"], cwd=HERE / "go"))
        else:
            print("go is not installed: the Go program is left out", file=sys.stderr)
        print(f"\nLook at {URL}/explore: services pyrograph, demo-python, demo-go (after about 15 s)\n", flush=True)
        return children[0].wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for child in children[::-1]:
            child.terminate()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
