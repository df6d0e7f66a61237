// SPDX-License-Identifier: Apache-2.0
// A meeting inside a frame of somebody's program that uses Jitsi's IFrame API: its commands and questions go to the meeting, what
// happens in the meeting goes to it. The program is whoever the server's framing policy lets around us; it is spoken with under its
// own origin only.
import type { MeetingControl, Options } from '../meet/control.ts';
import { BadArgument, commands, unsupported, type Desk } from './commands.ts';
import { apiId, hostOf, optionsOf, withoutSecrets } from './options.ts';
import { own, Params } from './params.ts';
import { Channel } from './postis.ts';
import { answer } from './requests.ts';
import { Teller } from './told.ts';

/** Answers on their way at most: a program that asks faster than it is answered is refused. */
const ASKING = 100;

/** Connects a meeting with the program around its page; does nothing where there is none. Returns what ends it. */
export function attach(control: MeetingControl): () => void {
  const url = new URL(location.href);
  if (hostOf(url) !== 'jitsi') return () => {};
  const options = optionsOf(url);
  control.configure({ ...options, embedded: true });
  history.replaceState(history.state, '', withoutSecrets(url));
  const bridge = new Bridge(control, `jitsi_meet_external_api_${apiId(url)}`, new Params(url.hash, true), options.prejoin !== false);
  return () => bridge.close();
}

export class Bridge {
  private readonly control: MeetingControl;
  private readonly channel: Channel;
  private readonly teller: Teller;
  private readonly unsubscribe: () => void;
  private readonly leaving: () => void;
  private levels = new Set<string>();
  private asking = 0;

  /** `settings` are those of the address; of them only what the bridge itself needs is read here. `prejoin`: one is asked before coming in. */
  constructor(control: MeetingControl, scope: string, settings: Params, prejoin = true) {
    this.control = control;
    this.listenTo(settings.get('config.apiLogLevels'));
    const height = settings.number('config.resolution');
    if (height) control.setQuality(height);
    this.teller = new Teller(control, (name, data) => this.emit(name, data));
    this.channel = new Channel({ scope, peer: window.parent, onMessage: (m) => this.hear(m) });
    this.unsubscribe = control.subscribe((e) => this.teller.tell(e));
    this.leaving = () => this.teller.tell({ type: 'left' });
    window.addEventListener('pagehide', this.leaving);
    this.teller.begin(prejoin);
  }

  close(): void {
    window.removeEventListener('pagehide', this.leaving);
    this.unsubscribe();
    this.channel.close();
  }

  private emit(name: string, data?: Record<string, unknown>): void {
    this.channel.send({ type: 'event', data: { ...data, name } });
  }

  private hear(message: unknown): void {
    const data = own(message, 'data');
    switch (own(message, 'type')) {
      case 'event':
        void this.command(own(data, 'name'), own(data, 'data'));
        break;
      case 'request':
        void this.request(own(message, 'id'), data);
        break;
    }
  }

  private async command(name: unknown, data: unknown): Promise<void> {
    if (typeof name !== 'string') return;
    const found = own(commands, name) as (typeof commands)[string] | undefined;
    if (!found) {
      const missing = own(unsupported, name);
      return this.log('warn', missing ? `${name} is not supported: there is no ${String(missing)}` : `unknown command ${name.slice(0, 100)}`);
    }
    let args: readonly unknown[] = Array.isArray(data) ? data : [];
    // executeCommands({ displayName: ['Al'] }) hands its list over as one argument.
    if (args.length === 1 && Array.isArray(args[0])) args = args[0] as unknown[];
    const desk: Desk = {
      control: this.control,
      emit: (event, more) => this.emit(event, more),
      configure: (change, config) => this.configure(change, config),
    };
    try {
      await found(desk, args);
    } catch (error) {
      const words = error instanceof Error ? error.message : 'it did not work';
      this.log(error instanceof BadArgument ? 'warn' : 'error', `${name}: ${words}`);
    }
  }

  private async request(id: unknown, data: unknown): Promise<void> {
    if (typeof id !== 'number' && typeof id !== 'string') return;
    const respond = (answered: { result: unknown } | { error: { name: string; message: string } }) => this.channel.send({ type: 'response', id, ...answered });
    if (this.asking >= ASKING) return respond({ error: { name: 'TooManyRequests', message: 'too many questions at once' } });
    this.asking++;
    try {
      respond({ result: (await answer(this.control, data)) ?? null });
    } catch (error) {
      respond({ error: { name: 'RequestError', message: error instanceof Error ? error.message : 'it did not work' } });
    } finally {
      this.asking--;
    }
  }

  private configure(change: Partial<Options>, config: unknown): void {
    this.listenTo(own(config, 'apiLogLevels'));
    const height = own(config, 'resolution');
    if (typeof height === 'number' && height > 0) this.control.setQuality(height);
    this.control.configure(change);
    if (change.subject !== undefined) void this.control.setSubject(change.subject).catch(() => {}); // only hosts may
  }

  /** Which of our own notes the program wants to hear, as `log` events. */
  private listenTo(levels: unknown): void {
    if (Array.isArray(levels)) this.levels = new Set(levels.slice(0, 10).filter((l): l is string => typeof l === 'string'));
  }

  private log(level: 'warn' | 'error', text: string): void {
    console[level](`IFrame API: ${text}`);
    if (this.levels.has(level)) this.emit('log', { logLevel: level, args: [text] });
  }
}

