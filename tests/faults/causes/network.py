"""A link, a name or a service outside fails. Every server here is ours, on a loopback of the run's own."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("network")

# A server in a thread: it accepts, and then does what {then} says.
SERVER = """
import socket, threading, time

listener = socket.create_server(("127.0.0.1", $port))

def serve():
    while True:
        peer, _ = listener.accept()
        peer.recv(65536)
        {then}

threading.Thread(target=serve, daemon=True).start()
"""
SILENT = "kept.append(peer)  # never answers"

fault(
    "hub_unreachable",
    "refused",
    """
from transformers import AutoConfig

log.info("loading org/$run from the hub")
AutoConfig.from_pretrained("org/$run")
""",
    says=("We couldn't connect to", "to load the files"),
    because="nothing listens on the hub's address",
    stage=Stage(env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}),
    exit=1,
)
fault(
    "hub_unreachable",
    "name_resolution",
    """
import requests

def fetch(name):
    reply = requests.get(f"https://huggingface.co/datasets/{name}/resolve/main/train.jsonl", timeout=5)
    reply.raise_for_status()
    return reply.content

log.info("downloading dataset org/$run")
fetch("org/$run")
""",
    says=("Failed to resolve 'huggingface.co'",),
    because="the machine has no name server",
    needs=("root",),
    exit=1,
)
fault(
    "hub_unreachable",
    "certificate",
    """
import ssl, subprocess, threading, urllib.request
from http.server import HTTPServer, SimpleHTTPRequestHandler

subprocess.run("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost".split(), capture_output=True, check=True)
server = HTTPServer(("127.0.0.1", $port), SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.handle_error = lambda *_: None
threading.Thread(target=server.serve_forever, daemon=True).start()
log.info("downloading tokenizer from https://localhost:$port/models/$run/tokenizer.json")
urllib.request.urlopen("https://localhost:$port/models/$run/tokenizer.json", timeout=5)
""",
    says=("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",),
    because="the mirror's certificate is signed by itself",
    needs=("openssl",),
    exit=1,
)
fault(
    "package_index_timeout",
    "pip",
    "kept = []\n"
    + SERVER.replace("{then}", SILENT)
    + """
import subprocess
import sys

sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", "--isolated", "--timeout", "1", "--retries", "1", "--index-url", "http://127.0.0.1:$port/simple", "--target", "site", "einops"]).returncode)
""",
    says=("Read timed out", "Could not find a version that satisfies the requirement einops"),
    enough=("Read timed out",),
    because="the package index accepts connections and never answers",
    hard="consequence",
    decoy="missing_dependency",
    exit=1,
)
fault(
    "interrupted_download",
    "cut_off",
    SERVER.replace(
        "{then}",
        'peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1000000\\r\\n\\r\\n" + b"x" * 200_000); peer.close()',
    )
    + """
import requests

log.info("downloading model.safetensors (1.0 MB)")
data = requests.get("http://127.0.0.1:$port/$run/model.safetensors", timeout=5).content
""",
    says=("IncompleteRead(",),
    because="the server closes the connection after a fifth of the file",
    exit=1,
    fast=True,
)
fault(
    "interrupted_download",
    "reset",
    SERVER.replace(
        "{then}",
        'import struct; peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1000000\\r\\n\\r\\n" + b"x" * 20_000); time.sleep(0.3); '
        'peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); peer.close()',
    )
    + """
import urllib.request

log.info("downloading $shard.tar")
with urllib.request.urlopen("http://127.0.0.1:$port/$shard.tar", timeout=5) as reply:
    data = b""
    while chunk := reply.read(65536):
        data += chunk
        log.info("%d of 1000000 bytes", len(data))
    assert len(data) == 1_000_000, f"download of $shard.tar interrupted: got {len(data)} of 1000000 bytes"
""",
    says=("ConnectionResetError: [Errno 104] Connection reset by peer", "downloading"),
    because="the server resets the connection in the middle of the file",
    exit=1,
)
fault(
    "artifact_upload_timeout",
    "put",
    "kept = []\n"
    + SERVER.replace("{then}", SILENT)
    + """
import requests

def upload(path):
    log.info("uploading %s to the artifact store", path)
    requests.put(f"http://127.0.0.1:$port/artifacts/$run/{path}", data=b"0" * 1000, timeout=2)

upload("step-$fail_at.ckpt")
""",
    says=("requests.exceptions.ReadTimeout", "Read timed out", "artifact"),
    because="the artifact store never confirms the upload",
    exit=1,
)
fault(
    "interface_misconfigured",
    "gloo_ifname",
    """
import os
import torch.distributed as dist

log.info("rank %s: GLOO_SOCKET_IFNAME=%s", os.environ["RANK"], os.environ["GLOO_SOCKET_IFNAME"])
dist.init_process_group("gloo")
""",
    says=("Unable to find address for: $interface",),
    because="the interface named in GLOO_SOCKET_IFNAME does not exist",
    stage=Stage(
        command="GLOO_SOCKET_IFNAME=$interface RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port python $script"
    ),
    draws={"interface": ("eth9", "ib0", "bond1", "ens5f0")},
    exit=1,
)
fault(
    "node_network_broken",
    "unreachable",
    """
import socket

def parameter_server(address):
    return socket.create_connection((address, $port), timeout=5)

log.info("connecting to the parameter server on 10.12.0.7:$port")
parameter_server("10.12.0.7")
""",
    says=("OSError: [Errno 101] Network is unreachable",),
    because="the node has no route off itself",
    needs=("root",),
    exit=1,
)
fault(
    "node_network_broken",
    "link_down_mid_run",
    """
import socket, subprocess, threading, time

subprocess.run("ip addr add 10.20.0.1/24 dev lo".split(), check=True)
for step in range(9):
    if step == $fail_at:
        subprocess.run("ip link set lo down; ip addr flush dev lo", shell=True, check=True)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.sendto(b"heartbeat", ("10.20.0.9", $port))
    log.info("step %d: heartbeat sent to 10.20.0.9", step)
""",
    says=("OSError: [Errno 101] Network is unreachable", "heartbeat sent"),
    because="the interface goes down while the job runs",
    needs=("root", "ip"),
    exit=1,
)
