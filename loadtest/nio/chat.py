#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two people chat through matrix-nio, a client library that others wrote: chat.py URL USER PASSWORD USER PASSWORD FOLDER

They log in, meet in a room, write, type, read, send a picture, look back, and talk encrypted in a second room. It prints one line for
each thing that worked and ends with status 1 at the first that did not.

Debian's matrix-nio (0.20) writes access tokens into the query, where they end up in logs; Trunkboard takes them in the Authorization
header only. Client below moves them there, as newer releases of the library do, and leaves everything else to the library.
"""

import asyncio
import io
import os
import sys
from urllib.parse import parse_qsl, urlencode, urlsplit

from nio import (AsyncClient, AsyncClientConfig, DownloadError, InviteMemberEvent, MegolmEvent, RoomMessageImage, RoomMessageText,
                 RoomMessagesResponse)
from nio.responses import ErrorResponse

PATIENCE = 60  # seconds for anything that another person must do


class Client(AsyncClient):
    async def send(self, method, path, data=None, headers=None, trace_context=None, timeout=None):
        url = urlsplit(path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        token = query.pop("access_token", None)
        if token:
            headers = {**(headers or {}), "Authorization": "Bearer " + token}
            path = url._replace(query=urlencode(query)).geturl()
        return await super().send(method, path, data, headers, trace_context, timeout)


class Failed(Exception):
    """What did not work."""


def good(answer):
    if isinstance(answer, ErrorResponse):
        raise Failed(f"refused: {answer}")
    return answer


class Person:
    """A user whose client syncs all the time, and what he was told."""

    def __init__(self, url, user, password, folder):
        store = os.path.join(folder, user)
        os.makedirs(store)
        self.client = Client(url, user, store_path=store, config=AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True))
        self.password, self.told, self.news, self.loop = password, [], asyncio.Event(), None

    async def login(self):
        good(await self.client.login(self.password, device_name="nio"))
        self.client.add_event_callback(self.hear, (RoomMessageText, RoomMessageImage, MegolmEvent, InviteMemberEvent))
        self.loop = asyncio.ensure_future(self.client.sync_forever(timeout=20000, full_state=True))
        await self.client.synced.wait()

    async def hear(self, room, event):
        self.told.append((room.room_id, event))
        self.news.set()

    async def until(self, what, found):
        """Waits until found gives something for what was told, and gives that."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while True:
            for room, event in self.told:
                if (x := found(room, event)) is not None:
                    return x
            left = end - asyncio.get_running_loop().time()
            try:
                self.news.clear()
                await asyncio.wait_for(self.news.wait(), left)
            except asyncio.TimeoutError:
                raise Failed(f"{self.client.user_id} was not told of {what}; of {self.told}")

    async def text(self, room, body):
        return await self.until(body, lambda r, e: e if r == room and isinstance(e, RoomMessageText) and e.body == body else None)

    async def say(self, room, body):
        content = {"msgtype": "m.text", "body": body}
        return good(await self.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)).event_id

    async def invited(self, room):
        await self.until("an invitation", lambda r, e: True if r == room and isinstance(e, InviteMemberEvent) else None)
        good(await self.client.join(room))
        await self.sees(room, self)

    async def sees(self, room, *people):
        """Waits until the client has the room with these people in it."""
        def there():
            r = self.client.rooms.get(room)
            return r and all(p.client.user_id in r.users and not r.users[p.client.user_id].invited for p in people)

        while not there():
            await asyncio.wait_for(self.client.synced.wait(), PATIENCE)

    async def leave(self):
        await self.stop()
        good(await self.client.logout())

    async def stop(self):
        if self.loop:
            self.loop.cancel()
            await asyncio.gather(self.loop, return_exceptions=True)


async def chat(alice, bob):
    await asyncio.gather(alice.login(), bob.login())
    print("ok: both are logged in and sync")
    good(await alice.client.set_displayname("Alice"))

    room = good(await alice.client.room_create(name="nio", invite=[bob.client.user_id])).room_id
    await bob.invited(room)
    await bob.say(room, "hello")
    hello = await alice.text(room, "hello")
    await alice.say(room, "hello yourself")
    await bob.text(room, "hello yourself")
    good(await alice.client.room_typing(room, True))
    good(await alice.client.room_read_markers(room, hello.event_id, hello.event_id))
    print("ok: they write, type and read")

    picture = os.urandom(300_000)
    up, _ = await alice.client.upload(lambda *_: io.BytesIO(picture), content_type="image/png", filename="p.png", filesize=len(picture))
    content = {"msgtype": "m.image", "body": "p.png", "url": good(up).content_uri, "info": {"mimetype": "image/png", "size": len(picture)}}
    good(await alice.client.room_send(room, "m.room.message", content))
    image = await bob.until("the picture", lambda r, e: e if isinstance(e, RoomMessageImage) else None)
    down = await bob.client.download(mxc=image.url)
    if isinstance(down, DownloadError) or down.body != picture:
        raise Failed(f"the picture {image.url} came back as {down} {down.transport_response.url}")
    print("ok: a picture goes up and comes down")

    back = good(await bob.client.room_messages(room, bob.client.next_batch, limit=50))
    texts = [e.body for e in back.chunk if isinstance(e, RoomMessageText)]
    if not isinstance(back, RoomMessagesResponse) or texts != ["hello yourself", "hello"]:
        raise Failed(f"looking back shows {texts}")
    if bob.client.rooms[room].user_name(alice.client.user_id) != "Alice":
        raise Failed("her name did not arrive")
    print("ok: the past and the names are there")

    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    secret = good(await alice.client.room_create(name="secret", invite=[bob.client.user_id], initial_state=[encryption])).room_id
    await bob.invited(secret)
    await alice.sees(secret, bob)
    await bob.sees(secret, alice)
    await alice.say(secret, "nobody else reads this")
    e = await bob.text(secret, "nobody else reads this")
    if not e.decrypted:
        raise Failed("it was not encrypted")
    await bob.say(secret, "nor this")
    e = await alice.text(secret, "nor this")
    if not e.decrypted:
        raise Failed("the answer was not encrypted")
    print("ok: they talk encrypted")
    await asyncio.gather(alice.leave(), bob.leave())
    print("ok: both are logged out")


def main():
    if len(sys.argv) != 7:
        raise SystemExit(__doc__)
    url, a, apass, b, bpass, folder = sys.argv[1:]

    async def run():
        alice, bob = Person(url, a, apass, folder), Person(url, b, bpass, folder)
        try:
            await asyncio.wait_for(chat(alice, bob), 3 * PATIENCE)
        except (Failed, asyncio.TimeoutError) as e:
            print(f"failed: {e or 'it took too long'}")
            sys.exit(1)
        finally:
            for p in alice, bob:
                await p.stop()
                await p.client.close()

    asyncio.run(run())


main()
