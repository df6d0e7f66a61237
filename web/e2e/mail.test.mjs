// SPDX-License-Identifier: Apache-2.0
// E-mail addresses in the web client: an account that must prove one, and a forgotten password.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, before, it } from 'node:test';
import { freshName, launch } from './pages.mjs';
import { homeserver } from './server.mjs';

/** A mail server (RFC 5321) that keeps what it is given; `next` waits for the next mail. */
async function mailServer() {
  const mails = [];
  const waiting = [];
  const keep = (mail) => (waiting.length ? waiting.shift()(mail) : mails.push(mail));
  const net = createServer((socket) => {
    let rest = '';
    let body;
    socket.on('error', () => {});
    socket.write('220 test\r\n');
    socket.on('data', (chunk) => {
      rest += chunk;
      for (let end = rest.indexOf('\r\n'); end >= 0; end = rest.indexOf('\r\n')) {
        const line = rest.slice(0, end);
        rest = rest.slice(end + 2);
        if (body !== undefined) {
          if (line !== '.') {
            body += `${line}\n`;
            continue;
          }
          keep(body);
          body = undefined;
          socket.write('250 kept\r\n');
        } else if (/^DATA/i.test(line)) {
          body = '';
          socket.write('354 go on\r\n');
        } else if (/^QUIT/i.test(line)) socket.end('221 bye\r\n');
        else socket.write('250 ok\r\n');
      }
    });
  }).listen(0, '127.0.0.1');
  await once(net, 'listening');
  return {
    address: `127.0.0.1:${net.address().port}`,
    next: () => (mails.length ? Promise.resolve(mails.shift()) : new Promise((resolve) => waiting.push(resolve))),
    close: () => net.close(),
  };
}

/** The link into this server in a mail, whose body may be quoted-printable. */
function linkIn(mail) {
  const text = mail.replace(/=\n/g, '').replace(/=3D/gi, '=').replace(/&amp;/g, '&');
  const link = /http:\/\/localhost[^\s"<>]+/.exec(text)?.[0];
  assert.ok(link, `no link in:\n${mail}`);
  return link;
}

let post;
let server;
let browser;
before(async () => {
  post = await mailServer();
  server = await homeserver({ 'email.smtp': post.address, 'email.tls': 'off', 'email.from': 'Trunkboard <chat@localhost>', 'registration.require_email': 'true' });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
  post?.close();
});

it('an account proves its address by mail, and a forgotten password is replaced the same way', async () => {
  const ann = await browser.person(server.url);
  const name = freshName('ann');
  const address = `${name}@example.org`;
  const { page } = ann;
  /** Opens the link of the next mail as the mail program would, in a tab of its own. */
  const openLink = async () => {
    const tab = await page.context().newPage();
    await tab.goto(linkIn(await post.next()));
    const button = tab.locator('form button, form input[type=submit]').first();
    if (await button.count()) await button.click();
    await tab.waitForLoadState();
    await tab.close();
  };

  await page.goto(server.url);
  await ann.at('auth-tab-signup').click();
  await ann.at('auth-username').fill(name);
  await ann.at('auth-password').fill('first password');
  await ann.at('auth-submit').click();
  await ann.at('auth-email').fill(address);
  await ann.at('auth-submit').click();
  await ann.at('auth-mail').waitFor();
  await ann.at('auth-submit').click(); // too early
  await ann.at('auth-error').getByText('not been opened').waitFor();
  await openLink();
  await ann.at('auth-submit').click();
  await ann.at('empty-state').waitFor();
  assert.match(await ann.userId(), new RegExp(`^@${name}:`));

  const bob = await browser.person(server.url); // ann on another machine
  await bob.page.goto(server.url);
  await bob.at('auth-forgot').click();
  await bob.at('auth-email').fill(address);
  await bob.at('auth-password').fill('second password');
  await bob.at('auth-submit').click();
  await bob.at('auth-mail').waitFor();
  await openLink();
  await bob.at('auth-submit').click();
  await bob.at('auth-notice').getByText('new password is set').waitFor();
  await bob.at('auth-username').fill(name);
  await bob.at('auth-password').fill('first password');
  await bob.at('auth-submit').click();
  await bob.at('auth-error').getByText('not right').waitFor();
  await bob.at('auth-password').fill('second password');
  await bob.at('auth-submit').click();
  await bob.ready();
  await ann.close();
  await bob.close();
});
