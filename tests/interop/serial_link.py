"""A transfer and a conversation through `cepa serve` and `cepa forward` over two ptys that a line joins.

  python3 serial_link.py --cepa PATH --line 'python3 noisy_line.py --baud 115200 --ber 1e-5 --seed 3' [--bytes N]

The line's program gets --link-a and --link-b, and has to make ptys there. N random bytes go to a service that
answers with their SHA-256, while a second stream echoes words of up to 64 bytes, each of which is compared. Last
line: PASS or FAIL, with the transfer's time and the round trips of the words in milliseconds. Standard library only.
"""
import argparse
import hashlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time


def started(command, env, found, log):
    """Starts a program, and gives what `found` picks from its standard error until that is something."""
    child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE, text=True)
    lines = []
    for line in child.stderr:
        lines.append(line)
        if result := found("".join(lines)):
            rest = threading.Thread(target=lambda: log.writelines(child.stderr), daemon=True)
            rest.start()
            return child, result
    raise SystemExit("FAIL %s ended: %s" % (command[1], "".join(lines).strip()))


def talk(port, seed, done, trips):
    rng = random.Random(seed)
    stream = socket.create_connection(("127.0.0.1", port), timeout=60)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not done.is_set() or len(trips) < 10:
        word = rng.randbytes(rng.randint(1, 64))
        began = time.monotonic()
        stream.sendall(word)
        back = b""
        while len(back) < len(word):
            piece = stream.recv(len(word) - len(back))
            if not piece:
                raise OSError("the conversation was cut")
            back += piece
        if back != word:
            raise OSError("another word came back")
        trips.append(1000 * (time.monotonic() - began))
        time.sleep(rng.uniform(0.05, 0.4))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cepa", required=True)
    parser.add_argument("--line", required=True)
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    children, error, trips, done = [], [], [], threading.Event()
    with tempfile.TemporaryDirectory() as place, open(os.path.join(place, "log"), "w") as log:
        env = dict(os.environ, CEPA_CONFIG_DIR=place)
        ends = [os.path.join(place, end) for end in "ab"]
        line = shlex.split(a.line) + ["--link-a", ends[0], "--link-b", ends[1]]
        children.append(subprocess.Popen(line, stdout=log, stderr=log))
        try:
            until = time.monotonic() + 20
            while not all(map(os.path.exists, ends)):
                if time.monotonic() > until:
                    raise OSError("no ptys from %s" % a.line)
                time.sleep(0.02)
            port = "serial:%s,baud=115200"
            serve = [a.cepa, "serve", port % ends[1], "--allow", "any", "--service", "echo=echo:",
                     "--service", "sum=exec:sha256sum"]
            child, _ = started(serve, env, lambda said: "listening on" in said, log)
            children.append(child)
            forward = [a.cepa, "forward", port % ends[0], "--trust", "any",
                       "-L", "tcp:127.0.0.1:0=sum", "-L", "tcp:127.0.0.1:0=echo"]
            said = lambda text: (p := re.findall(r"listening on tcp:127\.0\.0\.1:(\d+)", text)) and len(p) == 2 and p
            child, ports = started(forward, env, said, log)
            children.append(child)

            def conversation():
                try:
                    talk(int(ports[1]), a.seed, done, trips)
                except OSError as what:
                    error.append(what)

            other = threading.Thread(target=conversation)
            other.start()
            data = random.Random(a.seed).randbytes(a.bytes)
            began = time.monotonic()
            stream = socket.create_connection(("127.0.0.1", int(ports[0])), timeout=120)
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := stream.recv(4096):
                answer += piece
            took = time.monotonic() - began
            done.set()
            other.join()
            if answer.split()[:1] != [hashlib.sha256(data).hexdigest().encode()]:
                error.append("the SHA-256 is another one: %r" % answer)
        except OSError as what:
            error.append(what)
        finally:
            done.set()
            for child in reversed(children):
                child.send_signal(signal.SIGTERM)
                child.wait()
    if error:
        print("FAIL", *error)
        sys.exit(1)
    trips.sort()
    print("PASS %d bytes in %.2f s; %d words, p50 %.0f ms, p99 %.0f ms" % (
        a.bytes, took, len(trips), trips[len(trips) // 2], trips[len(trips) * 99 // 100]))


main()
