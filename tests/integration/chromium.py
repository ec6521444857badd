"""A page in Chromium, driven over two pipes with its DevTools protocol."""

import json
import os
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """A page that is open while the block runs.

    Args:
        address: What to open.
        profile: Folder for the browser's files.
    """

    def __init__(self, address, profile):
        self.address, self.profile, self.number, self.session = address, profile, 0, {}

    def __enter__(self):
        read_here, self.write = os.pipe()
        self.read, write_here = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4, which may be taken here: a shell puts them there.
        redirected = f'exec "$@" 3<&{read_here} 4>&{write_here}'
        words = ["bash", "-c", redirected, "chromium", CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
                 f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank"]  # fmt: skip
        self.process = subprocess.Popen(words, pass_fds=(read_here, write_here), stderr=subprocess.DEVNULL)
        os.close(read_here)
        os.close(write_here)
        self.answers = os.fdopen(self.read, "rb")
        target = self.call("Target.createTarget", url=self.address)["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.answers.close()
        os.close(self.write)

    def call(self, method, **parameters):
        """Returns the result of a method of the protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **self.session}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self.number:
            pass
        assert "result" in answer, answer
        return answer["result"]

    def _message(self):
        content = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            content += byte
        return json.loads(content)

    def run(self, script):
        """Returns the value of an expression of JavaScript, once it is there if it is a promise."""
        outcome = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in outcome, outcome
        return outcome["result"].get("value")

    def choose(self, selector, path):
        """Chooses a file in an input, as a click and its dialogue do."""
        self.run(f"document.querySelector('{selector}').dispatchEvent(new Event('click'))")
        node = self.call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=node)
