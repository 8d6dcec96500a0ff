"""A real broker for tests, with a session store, on a port that stays over restarts."""

import asyncio
import subprocess

import aiomqtt

from tests.services import free_port, require


class Mosquitto:
    """`await start()`, `stop()` (kills it) and again; what it keeps survives only `stop(gently=True)`."""

    def __init__(self, folder):
        self.port = free_port()
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {folder}/\nmax_queued_messages 0\n"
        )
        self._process = None

    async def start(self):
        self._process = subprocess.Popen(
            [require("mosquitto"), "-c", str(self._configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self._process.poll() is None, "mosquitto did not start"
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                await writer.wait_closed()
                return

    def stop(self, *, gently=False):
        if self._process is not None:
            if gently:
                self._process.terminate()
            else:
                self._process.kill()
            self._process.wait(10)
            self._process = None

    async def publish(self, *messages, qos=1):
        """Each message is a topic and a payload."""
        async with aiomqtt.Client("127.0.0.1", self.port) as client:
            for topic, payload in messages:
                await client.publish(topic, payload, qos=qos)
