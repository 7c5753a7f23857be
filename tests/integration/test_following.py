"""`%mlsys monitor --follow` by the widget protocol alone, as any front end speaks it. Witness: the messages of a real kernel."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("ipywidgets")
jupyter_client = pytest.importorskip("jupyter_client")

VIEW = "application/vnd.jupyter.widget-view+json"
LINE = "%mlsys monitor --follow"


class FrontEnd:
    """All that a kernel says, in order, and a button that can be pressed."""

    def __init__(self, folder: str) -> None:
        self.manager = jupyter_client.manager.KernelManager()
        self.manager.start_kernel(cwd=folder)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.heard: list[dict[str, Any]] = []

    def until(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 30.0) -> dict[str, Any]:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            for message in self.listen(0.2):
                if wanted(message):
                    return message
        raise AssertionError(f"not heard: {[m['msg_type'] for m in self.heard]}")

    def listen(self, seconds: float) -> Iterator[dict[str, Any]]:
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            try:
                message = self.client.get_iopub_msg(timeout=left)
            except queue.Empty:
                return
            self.heard.append(message)
            yield message

    def run(self, code: str) -> None:
        asked = self.client.execute(code)
        self.until(
            lambda m: m["parent_header"].get("msg_id") == asked and m["content"].get("execution_state") == "idle"
        )
        errors = [m["content"] for m in self.heard if m["msg_type"] == "error"]
        assert not errors, errors

    def press(self, button: str, down: bool) -> None:
        data = {"method": "update", "state": {"value": down}, "buffer_paths": []}
        self.client.shell_channel.send(self.client.session.msg("comm_msg", {"comm_id": button, "data": data}))

    def buttons(self) -> list[str]:
        opened = [m["content"] for m in self.heard if m["msg_type"] == "comm_open"]
        return [c["comm_id"] for c in opened if c["data"]["state"].get("_model_name") == "ToggleButtonModel"]

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def front(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontEnd]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    front = FrontEnd(str(tmp_path))
    yield front
    front.end()


def pictures(message: dict[str, Any]) -> bool:
    return message["msg_type"] == "update_display_data"


def released(button: str) -> Callable[[dict[str, Any]], bool]:
    def wanted(message: dict[str, Any]) -> bool:
        content = message["content"]
        return content.get("comm_id") == button and content["data"].get("state", {}).get("value") is False

    return wanted


def test_it_follows_pauses_and_leaves_its_picture(front: FrontEnd):
    front.run("%load_ext mlsys_studio")
    front.run(LINE)
    (button,) = front.buttons()
    view, shown = (m["content"] for m in front.heard if m["msg_type"] == "display_data")
    assert view["data"][VIEW]["model_id"] == button and "needs a kernel" in view["data"]["text/plain"]
    place = shown["transient"]["display_id"]
    asked = front.client.execute("import time; time.sleep(4)")  # of another cell than the line's
    front.until(lambda m: pictures(m) and "this kernel" in m["content"]["data"]["text/plain"])
    front.until(lambda m: m["parent_header"].get("msg_id") == asked and m["content"].get("execution_state") == "idle")

    front.press(button, False)
    front.run("pass")  # messages are handled one after the other: by now it has stopped
    last = [m for m in front.heard if pictures(m)][-1]["content"]
    assert last["transient"]["display_id"] == place
    assert "this kernel" in last["data"]["text/plain"] and "<script" not in last["data"]["text/html"]
    assert VIEW not in last["data"]  # what stays needs no widget
    assert not any(map(pictures, front.listen(2.5)))
    front.press(button, True)
    front.until(pictures)

    front.run(LINE)  # the newer one follows, and only that
    second = front.buttons()[-1]
    assert second != button and any(map(released(button), front.heard))
    front.run("import mlsys_studio.studio.following as following; following.REST = 0.5")
    front.until(released(second))  # nothing runs any more


def test_where_it_cannot_be():
    from mlsys_studio.profilers.errors import UsageError
    from mlsys_studio.studio.parsing import parse
    from mlsys_studio.studio.registry import Call
    from mlsys_studio.studio.running import run

    with pytest.raises(UsageError, match="--follow needs a notebook"):
        run(parse(["monitor", "--follow"], "mlsys"), Call("command", None, None, print))
