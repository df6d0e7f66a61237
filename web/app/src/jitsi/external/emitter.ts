// SPDX-License-Identifier: Apache-2.0
export type Listener = (...args: never[]) => void;

/** Listeners by name, with the methods that programs know from Node's EventEmitter. */
export class Emitter {
  private readonly lists = new Map<string, { listener: Listener; once: boolean }[]>();

  on(name: string, listener: Listener): this {
    if (typeof listener !== 'function') throw new TypeError('a listener is a function');
    this.lists.set(name, [...(this.lists.get(name) ?? []), { listener, once: false }]);
    return this;
  }

  once(name: string, listener: Listener): this {
    if (typeof listener !== 'function') throw new TypeError('a listener is a function');
    this.lists.set(name, [...(this.lists.get(name) ?? []), { listener, once: true }]);
    return this;
  }

  off(name: string, listener: Listener): this {
    const list = this.lists.get(name) ?? [];
    const at = list.map((entry) => entry.listener).lastIndexOf(listener);
    if (at >= 0) this.lists.set(name, [...list.slice(0, at), ...list.slice(at + 1)]);
    return this;
  }

  addListener(name: string, listener: Listener): this {
    return this.on(name, listener);
  }

  removeListener(name: string, listener: Listener): this {
    return this.off(name, listener);
  }

  removeAllListeners(name?: string): this {
    if (name === undefined) this.lists.clear();
    else this.lists.delete(name);
    return this;
  }

  listenerCount(name: string): number {
    return this.lists.get(name)?.length ?? 0;
  }

  listeners(name: string): Listener[] {
    return (this.lists.get(name) ?? []).map((entry) => entry.listener);
  }

  eventNames(): string[] {
    return [...this.lists.keys()];
  }

  /** Calls the listeners in the order they came; one that throws does not keep the others from hearing. */
  emit(name: string, ...args: unknown[]): boolean {
    const list = this.lists.get(name) ?? [];
    for (const { listener, once } of list) {
      if (once) this.off(name, listener);
      try {
        (listener as (...all: unknown[]) => void)(...args);
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
    return list.length > 0;
  }
}
