"""Healthy servers; in half of them a request fails and is answered."""

from __future__ import annotations

from causes.healthy import run
from fault import Stage

SERVER = """
import json, threading, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        {handle}

    def answer(self, code, value):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, line, *values):
        log.info("%s %s", self.client_address[0], line % values)

server = ThreadingHTTPServer(("127.0.0.1", $port), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
log.info("serving on 127.0.0.1:$port")

def ask(body, path="/v1/completions"):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:$port{{path}}", body, timeout=9).status
    except urllib.error.HTTPError as error:
        return error.code

{client}
server.shutdown()
log.info("server stopped, %d requests served", requests)
"""
PREDICT = 'self.answer(200, {"tokens": len(json.loads(body)["prompt"].split())})'
GUARDED = """try:
            self.answer(200, {"tokens": len(json.loads(body)["prompt"].split())})
        except Exception:
            log.exception("bad request from client, answered 400")
            self.answer(400, {"error": "bad request"})"""
CALLS = """requests = 0
for number in range({count}):
    code = ask({body})
    requests += 1
    log.info("client got %d", code)"""


def server(
    name: str, handle: str, body: str, *, count: int = 8, trap=False, cause="finished_ok", says=("server stopped",)
) -> None:
    run(
        cause,
        f"server_{name}",
        SERVER.format(handle=handle, client=CALLS.format(count=count, body=body)),
        says,
        trap=trap,
    )


GOOD = 'b\'{"prompt": "a b c"}\''
server("plain", PREDICT, GOOD)
server("busy", PREDICT, GOOD, count=40)
server("not_found", "self.answer(404 if self.path != '/v1/chat' else 200, {})", GOOD, trap=True)
server(
    "bad_json",
    GUARDED,
    "b'{oops' if number % 4 == 3 else " + GOOD,
    trap=True,
    says=("json.decoder.JSONDecodeError", "server stopped"),
)
server(
    "missing_prompt",
    GUARDED,
    "b'{\"text\": 1}' if number % 4 == 3 else " + GOOD,
    trap=True,
    says=("KeyError: 'prompt'", "server stopped"),
)
server("overloaded", "self.answer(503 if int(time.time() * 10) % 3 == 0 else 200, {})", GOOD, trap=True)
server("slow", f"time.sleep(0.4); {PREDICT}", GOOD, cause="slow_but_working")
run(
    "finished_ok",
    "server_sigterm",
    """
import signal, threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

server = ThreadingHTTPServer(("127.0.0.1", $port), SimpleHTTPRequestHandler)
signal.signal(signal.SIGTERM, lambda *_: (log.info("SIGTERM: draining and shutting down"), threading.Thread(target=server.shutdown).start()))
log.info("ready")
open("running", "w").close()
server.serve_forever()
log.info("drained, all requests answered, bye")
""",
    ("drained", "bye"),
    trap=True,
    stage=Stage(
        command="python $script & worker=$!; until [ -e running ]; do sleep 0.2; done; sleep 1; kill -TERM $worker; wait $worker"
    ),
)
