// SPDX-License-Identifier: Apache-2.0
// What a person does on the meeting page.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../app/package.json', import.meta.url));
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** Many pictures on a busy machine are slow. */
export const PATIENCE = Number(process.env.TRUNKBOARD_TEST_PATIENCE ?? 60_000);

/** The browser's fake camera need not be fast. */
export const MEET_FLAGS = ['--use-fake-device-for-media-stream=fps=5', '--auto-select-desktop-capture-source=Entire screen'];

export class Guest {
  /** @param {import('./pages.mjs').Client} client */
  constructor(client, name) {
    this.client = client;
    this.page = client.page;
    this.name = name;
    this.page.setDefaultTimeout(PATIENCE);
  }

  /** A guest in a browser window of their own, with small pictures. */
  static async come(browser, url, name, { context = {}, settings = {} } = {}) {
    const client = await browser.person(url, { settings: { 'trunkboard.meet.small': '1', ...settings }, context: { permissions: ['camera', 'microphone'], ...context } });
    return new Guest(client, name);
  }

  at(testid) {
    return this.page.getByTestId(testid);
  }

  async open(path) {
    await this.page.goto(this.client.url + path);
    await this.at('prejoin').waitFor();
  }

  /** From the link to the door: what is behind it, the caller says. */
  async knock(path) {
    await this.open(path);
    await this.at('meet-name').fill(this.name);
    await this.at('meet-join').click();
  }

  async join(path) {
    await this.knock(path);
    await this.inside();
  }

  async inside() {
    await this.page.locator('[data-testid="meet"][data-phase="in"]').waitFor();
  }

  /**
   * Joins and returns the milliseconds from the click to the first picture of somebody else that moves. Measured in the page:
   * how fast the test gets its answers does not count.
   */
  async joinTimed(path) {
    await this.open(path);
    await this.at('meet-preview').waitFor();
    await this.at('meet-name').fill(this.name);
    // What is loaded after the first paint is there before a person has found the button.
    await this.page.waitForLoadState('networkidle');
    return this.page.evaluate(
      (limit) =>
        new Promise((resolve, reject) => {
          const began = performance.now();
          const look = () => {
            const me = window.__meeting.snapshot.me?.id;
            const other = [...document.querySelectorAll('[data-testid="tile"][data-video="true"]')].find((t) => t.dataset.id !== me);
            if (me && other) resolve(performance.now() - began);
            else if (performance.now() - began > limit) reject(new Error('nobody is seen'));
            else requestAnimationFrame(look);
          };
          document.querySelector('[data-testid="meet-join"]').click();
          look();
        }),
      PATIENCE,
    );
  }

  tile(name, what = 'camera') {
    return this.page.locator(`[data-testid="tile"][data-name="${name}"][data-what="${what}"]`);
  }

  /** Waits until moving pictures of these people are on the screen. */
  async sees(...names) {
    for (const name of names) await this.page.locator(`[data-testid="tile"][data-name="${name}"][data-video="true"]`).first().waitFor();
  }

  async notice(words) {
    await this.at('notice').filter({ hasText: words }).first().waitFor();
  }

  /** Opens the menu of somebody in the list of people and chooses an entry. */
  async act(name, entry) {
    await this.people();
    const row = this.page.locator(`[data-testid="meet-person"][data-name="${name}"]`);
    await row.getByTestId('person-menu').click();
    await row.getByTestId(entry).click();
  }

  async people() {
    if (!(await this.at('meet-people').isVisible())) await this.at('bar-people').click();
    await this.at('meet-people').waitFor();
  }

  /** Waits until the list of people says this about somebody: `host`, `muted`. */
  async says(name, what, value) {
    await this.people();
    await this.page.locator(`[data-testid="meet-person"][data-name="${name}"][data-${what}="${value}"]`).waitFor();
  }

  async more(entry) {
    await this.at('bar-more').click();
    await this.at(entry).click();
  }

  async chat(open = true) {
    if ((await this.at('meet-messages').isVisible()) !== open) await this.at('bar-chat').click();
    await this.at('meet-messages').waitFor({ state: open ? 'visible' : 'detached' });
  }

  async say(words, to) {
    await this.chat();
    await this.at('meet-chat-to').selectOption(to ? { label: to } : '');
    await this.at('meet-chat-input').fill(words);
    await this.at('meet-chat-input').press('Enter');
  }

  async reads(words) {
    await this.chat();
    await this.at('meet-message').filter({ hasText: words }).last().waitFor();
  }

  async closeDialog() {
    await this.page.keyboard.press('Escape');
    await this.page.locator('dialog').waitFor({ state: 'detached' });
  }

  /** What axe finds wrong on the page as it stands, one line each. */
  async violations() {
    await this.page.evaluate(() => Promise.allSettled(document.getAnimations().filter((a) => a.effect.getComputedTiming().iterations !== Infinity).map((a) => a.finished)));
    await this.page.evaluate(AXE);
    return this.page.evaluate(async () => {
      // A canvas of axe's own cannot read pictures of a camera; everything around them is looked at.
      const { violations: found } = await window.axe.run();
      return found.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(' ')} ${n.any.map((a) => a.message).join('; ')}`));
    });
  }
}
