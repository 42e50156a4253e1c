"""A Gemini server by jetforce 1.0.0, for cepa's client to talk to: /open is for everyone, /account asks
for a certificate and says what jetforce has seen of it.

    jetforce_app.py CERT KEY      prints LISTENING n
"""
import sys

from jetforce import GeminiServer, JetforceApplication, Response, Status

app = JetforceApplication()


@app.route("/open")
def everyone(request):
    return Response(Status.SUCCESS, "text/gemini", "open to all\n")


@app.route("/account")
def account(request):
    fingerprint = request.environ.get("TLS_CLIENT_HASH")
    if not fingerprint:
        return Response(Status.CLIENT_CERTIFICATE_REQUIRED, "a certificate, please")
    name = request.environ["REMOTE_USER"]
    return Response(Status.SUCCESS, "text/gemini", f"{fingerprint} {name}\n")


class Server(GeminiServer):
    def on_bind_interface(self, port):
        self.port = port.socket.getsockname()[1]
        print(f"LISTENING {self.port}", flush=True)


Server(
    app,
    host="127.0.0.1",
    port=0,
    hostname="localhost",
    certfile=sys.argv[1],
    keyfile=sys.argv[2],
).run()
