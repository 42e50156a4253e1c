"""An onion peer that shares no code with cepa: CPython's ssl (OpenSSL) over memory BIOs.

It speaks OLP/1, the line protocol of cepa's onion tests, as driver (asks and judges) or as responder:

    onion_peer.py drive|respond TRANSPORT --certs DIR [--limit S] [--seed N] [--chop N] [--strict]

    TRANSPORT: --listen PORT [--portfile F] | --connect PORT | --tty PATH | --open-pty [--portfile F] | --stdio | --exec CMD

How it works: a stack of byte streams that are pulled from the top. Each stream can take bytes back
(`unread`), and that is the whole trick. OpenSSL takes one record at a time out of its BIO, so when it
reports the peer's close_notify, what is left in the BIO belongs to the stream below and is handed back
there; and bytes that were read too far before a layer is put on are handed back to become its input.
The last line is PASS or FAIL with figures (on standard error when --stdio is the transport).
"""
import argparse
import hashlib
import os
import random
import select
import shlex
import socket
import ssl
import subprocess
import sys
import termios
import time
import tty

# name -> TLS version, its code, the suite asked for (TLS 1.2 only: Python can't choose a 1.3 suite), its code
PROFILES = {
    "A": (ssl.TLSVersion.TLSv1_3, "0304", None, "1301"),
    "B": (ssl.TLSVersion.TLSv1_2, "0303", "ECDHE-RSA-CHACHA20-POLY1305", "cca8"),
    "C": (ssl.TLSVersion.TLSv1_3, "0304", None, "1303"),
    "O": (ssl.TLSVersion.TLSv1_3, "0304", None, "1302"),
}
SUITES = {
    "TLS_AES_128_GCM_SHA256": "1301",
    "TLS_AES_256_GCM_SHA384": "1302",
    "TLS_CHACHA20_POLY1305_SHA256": "1303",
    "ECDHE-RSA-CHACHA20-POLY1305": "cca8",
}
OTHER = {"driver": "responder", "responder": "driver"}
CLOSED = object()  # what read_line gives when the peer closed this layer


class Wrong(Exception):
    """The other side did what OLP/1 does not allow, or the time is up."""


class Stream:
    """What a wire and a layer have in common: bytes that were given back, and lines."""

    def __init__(self):
        self.back = b""  # read from below, not yet used
        self.later = b""  # goes out in front of, and in one piece with, the next write

    def unread(self, data):
        self.back = data + self.back

    def some(self):
        """At least one byte, or b"" at the end of this stream."""
        if self.back:
            data, self.back = self.back, b""
            return data
        return self.pull()

    def read_line(self):
        line = b""
        while b"\n" not in line:
            data = self.some()
            if not data:
                if line:
                    raise Wrong("the stream ended inside the line %r" % line)
                return CLOSED
            line += data
            if len(line) > 8192 and b"\n" not in line[:8193]:
                raise Wrong("a line of more than 8192 bytes")
        line, _, rest = line.partition(b"\n")
        self.unread(rest)
        return line.rstrip(b"\r").decode("ascii")

    def read_exactly(self, count):
        parts, missing = [], count
        while missing:
            data = self.some()
            if not data:
                raise Wrong("the stream ended with %d bytes missing" % missing)
            parts.append(data[:missing])
            if len(data) > missing:
                self.unread(data[missing:])
            missing -= len(parts[-1])
        return b"".join(parts)


class Wire(Stream):
    def __init__(self, read_fd, write_fd, options):
        super().__init__()
        self.read_fd, self.write_fd = read_fd, write_fd
        self.chop, self.end = options.chop, time.monotonic() + options.limit
        self.corked, self.received, self.sent = False, 0, 0

    def left(self):
        left = self.end - time.monotonic()
        if left <= 0:
            raise Wrong("the time is up")
        return left

    def pull(self):
        select.select([self.read_fd], [], [], self.left())
        self.left()
        try:
            data = os.read(self.read_fd, self.chop)
        except OSError:  # EIO: the other side of a pty is gone
            data = b""
        self.received += len(data)
        return data

    def write(self, data):
        self.later += data
        if not self.corked:
            self.uncork()

    def uncork(self):
        data, self.later, self.corked = memoryview(self.later), b"", False
        while data:
            select.select([], [self.write_fd], [], self.left())
            self.left()
            # A terminal blocks in the middle of a large write; small pieces keep the time limit true.
            count = os.write(self.write_fd, data[:1024])
            self.sent += count
            data = data[count:]


class Layer(Stream):
    def __init__(self, below, me, profile, as_client, options):
        super().__init__()
        version, self.version, suite, self.suite = PROFILES[profile]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if as_client else ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        if suite:
            context.set_ciphers(suite)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(certificate_file(options, OTHER[me], profile))
        context.load_cert_chain(
            certificate_file(options, me, profile),
            os.path.join(options.certs, "%s-%s.key.pem" % (me, profile)),
        )
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=not as_client)
        self.below, self.profile, self.peer_closed = below, profile, False
        self.carry(self.tls.do_handshake)
        self.peer_fingerprint = hashlib.sha256(self.tls.getpeercert(True)).hexdigest()
        if self.tls.cipher()[0] not in SUITES or self.tls.version() != version.name.replace("_", "."):
            raise Wrong("layer %s has %s %s" % (profile, self.tls.version(), self.tls.cipher()[0]))
        if options.strict and SUITES[self.tls.cipher()[0]] != self.suite:
            raise Wrong("layer %s has the suite %s" % (profile, self.tls.cipher()[0]))
        self.suite = SUITES[self.tls.cipher()[0]]

    def send_out(self):
        data = self.outgoing.read()
        if data:
            self.below.write(data)

    def carry(self, step, *arguments):
        """Does one step of the TLS machine, moving bytes below until it has what it wants."""
        while True:
            try:
                result = step(*arguments)
                self.send_out()
                return result
            except ssl.SSLWantReadError:
                self.send_out()
                if isinstance(self.below, Wire):
                    self.below.uncork()
                data = self.below.some()
                if not data:
                    raise Wrong("the stream below layer %s ended without close_notify" % self.profile)
                self.incoming.write(data)

    def pull(self):
        if self.peer_closed:
            return b""
        try:
            return self.carry(self.tls.read, 65536)
        except ssl.SSLZeroReturnError:
            self.peer_closed = True
            return b""

    def write(self, data):
        data, self.later = memoryview(self.later + data), b""
        while data:
            count = self.tls.write(data[:16384])
            self.send_out()
            data = data[count:]

    def close(self):
        """Sends close_notify, waits for the peer's, and gives back what came behind it."""
        if self.back:
            raise Wrong("%d bytes stand before the close of layer %s" % (len(self.back), self.profile))
        self.carry(self.tls.unwrap)
        self.below.unread(self.incoming.read())

    def __str__(self):
        return "/".join((self.profile, self.version, self.suite, self.peer_fingerprint))


def certificate_file(options, side, profile):
    return os.path.join(options.certs, "%s-%s.crt.pem" % (side, profile))


class End:
    """One end with its stack of layers, and what both roles do with it."""

    def __init__(self, wire, me, options):
        self.wire, self.me, self.options = wire, me, options
        self.layers, self.pushes, self.pops, self.answers = [], 0, 0, 0

    @property
    def top(self):
        return self.layers[-1] if self.layers else self.wire

    def say(self, line):
        self.top.write(line.encode("ascii") + b"\n")

    def push(self, profile, as_client):
        self.layers.append(Layer(self.top, self.me, profile, as_client, self.options))
        self.pushes += 1

    def drop(self):
        self.layers.pop().close()
        self.wire.uncork()
        self.pops += 1

    def who(self, fingerprints=None):
        views = [str(layer) for layer in self.layers]
        if fingerprints:
            views = [view[:12] + fingerprints[view[0]] for view in views]
        return " ".join(["WHO %d" % len(views)] + (views or ["-"]))


class Responder(End):
    def run(self):
        while True:
            line = self.top.read_line()
            if line is CLOSED:
                if not self.layers:
                    return  # the driver hung up
                self.drop()
                self.say("STOPPED %d" % len(self.layers))
                continue
            self.answers += 1
            word, _, rest = line.partition(" ")
            if word == "QUIT":
                return self.say("BYE")
            getattr(self, "on_" + word.lower().replace("-", "_"), self.on_nonsense)(rest)

    def on_nonsense(self, _):
        self.say("ERR command")

    def on_hello(self, _):
        self.say("HELLO olp/1 %d" % len(self.layers))

    def on_echo(self, text):
        self.say("ECHOED %d %s" % (len(self.layers), text))

    def on_who(self, _):
        self.say(self.who())

    def on_bulk(self, count):
        data = self.top.read_exactly(int(count))
        self.say("BULK %s %s" % (count, hashlib.sha256(data).hexdigest()))
        self.top.write(data)

    def on_starttls(self, profile):
        if self.known(profile):
            self.say("PROCEED " + profile)
            self.push(profile, as_client=False)

    def on_starttls_now(self, profile):
        if self.known(profile):
            self.push(profile, as_client=False)

    def on_starttls_rev(self, profile):
        if self.known(profile):
            # The hello goes out in one piece with this line.
            self.top.later += b"PROCEED %s\n" % profile.encode("ascii")
            self.push(profile, as_client=True)

    def on_stoptls(self, _):
        self.say("OK STOPTLS" if self.layers else "ERR depth")

    def on_stopme(self, _):
        if not self.layers:
            return self.say("ERR depth")
        self.drop()
        self.say("STOPPED %d" % len(self.layers))

    on_stopboth = on_stopme

    def known(self, profile):
        if profile not in PROFILES:
            self.say("ERR profile")
        return profile in PROFILES


class Driver(End):
    def __init__(self, wire, me, options):
        super().__init__(wire, me, options)
        self.random = random.Random(options.seed)
        self.mine = {p: self.fingerprint(me, p) for p in PROFILES}
        self.theirs = {p: self.fingerprint(OTHER[me], p) for p in PROFILES}

    def fingerprint(self, side, profile):
        with open(certificate_file(self.options, side, profile)) as file:
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).hexdigest()

    def want(self, expected):
        line = self.top.read_line()
        if line != expected:
            raise Wrong("wanted %r, got %r" % (expected, "(closed)" if line is CLOSED else line))
        self.answers += 1

    def ask(self, line, expected):
        self.say(line)
        self.want(expected)

    def look(self):
        """Both ends agree on the stack, and it carries bytes."""
        self.ask("WHO", self.who(self.mine))
        for layer in self.layers:
            if layer.peer_fingerprint != self.theirs[layer.profile]:
                raise Wrong("layer %s shows another certificate" % layer.profile)
        text = "%x" % self.random.getrandbits(self.random.choice((8, 800, 8000)))
        self.ask("ECHO " + text, "ECHOED %d %s" % (len(self.layers), text))

    def put_on(self, profile, how):
        if how == "asked":
            self.ask("STARTTLS " + profile, "PROCEED " + profile)
            self.push(profile, as_client=True)
        elif how == "now":
            self.top.later += b"STARTTLS-NOW %s\n" % profile.encode("ascii")
            self.push(profile, as_client=True)
        else:
            self.ask("STARTTLS-REV " + profile, "PROCEED " + profile)
            self.push(profile, as_client=False)
        self.look()

    def take_off(self, how):
        if how == "announced":
            self.ask("STOPTLS", "OK STOPTLS")
        elif how == "theirs":
            self.say("STOPME")
            if self.top.read_line() is not CLOSED:
                raise Wrong("bytes where a close_notify was wanted")
        elif how == "crossing":
            self.wire.corked = True
            self.say("STOPBOTH")
        self.drop()
        self.want("STOPPED %d" % len(self.layers))
        self.look()

    def bulk(self, count):
        data = self.random.randbytes(count)
        self.top.write(b"BULK %d\n" % count + data)
        self.want("BULK %d %s" % (count, hashlib.sha256(data).hexdigest()))
        if self.top.read_exactly(count) != data:
            raise Wrong("%d bytes came back changed" % count)

    def run(self):
        starts, stops = ("asked", "now", "theirs"), ("announced", "bare", "theirs", "crossing")
        self.ask("HELLO olp/1", "HELLO olp/1 0")
        for line in ("STOPTLS", "STOPME", "STOPBOTH"):
            self.ask(line, "ERR depth")
        self.ask("STARTTLS X", "ERR profile")
        self.ask("GARBAGE", "ERR command")
        self.look()
        for start in starts:  # every way in with every way out
            for stop in stops:
                self.put_on("A", start)
                self.take_off(stop)
        self.bulk(100000)
        for profile in "BACO":  # four layers, something large through each depth
            self.put_on(profile, self.random.choice(starts))
            for count in (1, 16384, 16385, 100000):
                self.bulk(count)
        while self.layers:
            self.take_off(self.random.choice(stops))
            self.bulk(5000)
        for _ in range(40):
            if not self.layers or (len(self.layers) < 3 and self.random.random() < 0.5):
                self.put_on(self.random.choice("ABCO"), self.random.choice(starts))
            else:
                self.take_off(self.random.choice(stops))
        while self.layers:
            self.take_off("bare")
        self.ask("QUIT", "BYE")


def tell(options, word, value):
    print("%s %s" % (word, value), flush=True)
    if options.portfile:  # appears whole
        with open(options.portfile + ".new", "w") as file:
            file.write(str(value))
        os.rename(options.portfile + ".new", options.portfile)


def open_wire(options):
    """The descriptors to read and to write, and what to do at the end."""
    if options.listen is not None or options.connect is not None:
        if options.connect is not None:
            connection = socket.create_connection(("127.0.0.1", options.connect), options.limit)
        else:
            with socket.create_server(("127.0.0.1", options.listen)) as listener:
                tell(options, "LISTENING", listener.getsockname()[1])
                listener.settimeout(options.limit)
                connection = listener.accept()[0]
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection.fileno(), connection.fileno(), connection.close
    if options.tty:
        fd = os.open(options.tty, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(fd, termios.TCSANOW)  # without a flush: the other side may have spoken already
        return fd, fd, lambda: (termios.tcdrain(fd), os.close(fd))
    if options.open_pty:
        fd, other = os.openpty()
        tty.setraw(other)
        tell(options, "PTY", os.ttyname(other))
        # What was written stays readable for the other side until this end is closed.
        return fd, fd, lambda: (drained(fd, other), os.close(fd))
    if options.exec:
        child = subprocess.Popen(shlex.split(options.exec), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def end():
            child.stdin.close()
            try:
                if child.wait(10) != 0:
                    raise Wrong("the child ended with %d" % child.returncode)
            except subprocess.TimeoutExpired:
                child.kill()
                raise Wrong("the child did not end when its input did") from None

        return child.stdout.fileno(), child.stdin.fileno(), end
    return 0, 1, lambda: None


def drained(master, slave):
    """Waits until the other side of a pty has read all, or two seconds."""
    end = time.monotonic() + 2
    while time.monotonic() < end and select.select([slave], [], [], 0)[0]:
        time.sleep(0.01)
    os.close(slave)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("drive", "respond"))
    transport = parser.add_mutually_exclusive_group(required=True)
    transport.add_argument("--listen", type=int, metavar="PORT")
    transport.add_argument("--connect", type=int, metavar="PORT")
    transport.add_argument("--tty", metavar="PATH")
    transport.add_argument("--open-pty", action="store_true")
    transport.add_argument("--stdio", action="store_true")
    transport.add_argument("--exec", metavar="CMD")
    parser.add_argument("--portfile", metavar="F")
    parser.add_argument("--certs", required=True, metavar="DIR")
    parser.add_argument("--limit", type=float, default=120, metavar="S")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chop", type=int, default=65536, help="read at most N bytes at a time")
    parser.add_argument("--strict", action="store_true", help="fail on another suite than the profile's")
    options = parser.parse_args()

    started, error, end = time.monotonic(), None, None
    out = sys.stderr if options.stdio else sys.stdout
    try:
        read_fd, write_fd, close = open_wire(options)
        wire = Wire(read_fd, write_fd, options)
        if options.role == "drive":
            end = Driver(wire, "driver", options)
        else:
            end = Responder(wire, "responder", options)
        end.run()
        close()
    except (Wrong, OSError, ValueError) as problem:  # ssl.SSLError is an OSError
        error = problem
    print(
        "%s python %s: %d pushes, %d pops, %d answers, %d bytes in, %d out, %.2f s%s"
        % (
            "FAIL" if error else "PASS",
            options.role,
            end.pushes if end else 0,
            end.pops if end else 0,
            end.answers if end else 0,
            end.wire.received if end else 0,
            end.wire.sent if end else 0,
            time.monotonic() - started,
            ": %r" % error if error else "",
        ),
        file=out,
        flush=True,
    )
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
