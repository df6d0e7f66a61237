// SPDX-License-Identifier: Apache-2.0
// Where the pictures are: all the same size, or one big with a strip of others.
import { useEffect, useRef, useState } from 'react';
import { Icon } from '../ui/Icon.tsx';
import { arrange, perPage } from './arrange.ts';
import type { Person } from './control.ts';
import { byRank } from './state.ts';
import { type Seen, Tile } from './Tile.tsx';
import { useMeet, useWords } from './use.ts';

const GAP = 10;

/** The size of an element, followed. */
function useSize(): [React.RefCallback<HTMLElement>, { width: number; height: number }] {
  const [size, setSize] = useState({ width: 0, height: 0 });
  const observer = useRef<ResizeObserver>(null);
  const ref = useRef<React.RefCallback<HTMLElement>>((element) => {
    observer.current?.disconnect();
    if (!element) return;
    observer.current = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setSize((old) => (Math.abs(old.width - width) < 1 && Math.abs(old.height - height) < 1 ? old : { width, height }));
    });
    observer.current.observe(element);
  });
  return [ref.current, size];
}

/** Everything that can be looked at: screens first. */
export function seenOf(people: Person[], hideSelf: boolean): Seen[] {
  const shown = [...people].sort(byRank).filter((p) => !(hideSelf && p.local && people.length > 1));
  return [...shown.filter((p) => p.sharing).map((person) => ({ person, what: 'screen' as const })), ...shown.map((person) => ({ person, what: 'camera' as const }))];
}

/** Who is big: the pinned one, else a screen, else who speaks, else anybody but oneself. A pinned person's screen goes before the face. */
export function spotlit(seen: Seen[], pinned: string | undefined, speaker: string | undefined): Seen | undefined {
  const of = (id: string | undefined) => (id === undefined ? undefined : seen.find((s) => s.person.id === id));
  return of(pinned) ?? seen.find((s) => s.what === 'screen' && !s.person.local) ?? seen.find((s) => s.person.id === speaker && s.what === 'camera') ?? seen.find((s) => !s.person.local) ?? seen[0];
}

const same = (a: Seen | undefined, b: Seen) => a?.person.id === b.person.id && a.what === b.what;
const keyOf = (s: Seen) => `${s.person.id}/${s.what}`;

export function Stage() {
  const people = useMeet((s) => s.people);
  const view = useMeet((s) => s.view);
  const pinned = useMeet((s) => s.pinned);
  const speaker = useMeet((s) => s.speaker);
  const hideSelf = useMeet((s) => s.options.hideSelf === true);
  const seen = seenOf(people, hideSelf);
  if (view === 'tile' || seen.length < 2) return <Tiles seen={seen} />;
  return <Speaker seen={seen} big={spotlit(seen, pinned, speaker)} />;
}

function Tiles({ seen }: { seen: Seen[] }) {
  const w = useWords();
  const [ref, { width, height }] = useSize();
  const [page, setPage] = useState(0);
  const fit = perPage(width, height, GAP);
  const pages = Math.max(1, Math.ceil(seen.length / fit));
  const at = Math.min(page, pages - 1);
  const shown = seen.slice(at * fit, at * fit + fit);
  const a = arrange(shown.length, width, height, GAP);
  return (
    <section className="meet-stage" aria-label={w.stage} data-testid="stage" data-view="tile">
      <div className="meet-tiles" ref={ref}>
        {width > 0 && shown.map((s) => <Tile key={keyOf(s)} person={s.person} what={s.what} width={a.width} height={a.height} />)}
      </div>
      {pages > 1 && (
        <nav className="meet-pages" aria-label={w.pageOf(at + 1, pages)}>
          <button type="button" className="icon-button" aria-label={w.previousPage} disabled={at === 0} onClick={() => setPage(at - 1)}>
            <Icon name="back" />
          </button>
          <span>
            {at + 1} / {pages}
          </span>
          <button type="button" className="icon-button flipped" aria-label={w.nextPage} disabled={at === pages - 1} onClick={() => setPage(at + 1)}>
            <Icon name="back" />
          </button>
        </nav>
      )}
    </section>
  );
}

function Speaker({ seen, big }: { seen: Seen[]; big: Seen | undefined }) {
  const w = useWords();
  const strip = useRef<HTMLDivElement>(null);
  const others = seen.filter((s) => !same(big, s));
  const first = big && keyOf(big);
  // In braces: newer browsers return a promise, which React would take for a clean-up.
  useEffect(() => {
    strip.current?.scrollTo({ top: 0, left: 0 });
  }, [first]);
  return (
    <section className="meet-stage speaker" aria-label={w.stage} data-testid="stage" data-view="speaker">
      <div className="meet-big">{big && <Tile key={keyOf(big)} person={big.person} what={big.what} big />}</div>
      <div className="meet-strip" ref={strip} tabIndex={0} role="group" aria-label={w.strip}>
        {others.map((s) => (
          <Tile key={keyOf(s)} person={s.person} what={s.what} />
        ))}
      </div>
    </section>
  );
}
