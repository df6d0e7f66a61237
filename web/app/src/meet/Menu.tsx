// SPDX-License-Identifier: Apache-2.0
import { type ReactNode, useEffect, useId, useRef, useState } from 'react';
import { Icon, type IconName } from '../ui/Icon.tsx';

export interface MenuEntry {
  icon: IconName;
  label: string;
  do: () => void;
  danger?: boolean;
  testid?: string;
  /** Shows whether something is on. */
  checked?: boolean;
}

interface Props {
  label: string;
  className: string;
  testid?: string;
  children: ReactNode;
  entries: MenuEntry[];
  /** To which edge of the button the menu is aligned. */
  align?: 'start' | 'end' | 'centre';
  side?: 'above' | 'below';
}

/** A button with a menu, by the pattern of the ARIA practices: arrows, Home, End and Escape work, the focus comes back. */
export function Menu({ label, className, testid, children, entries, align = 'centre', side = 'above' }: Props) {
  const [open, setOpen] = useState(false);
  const id = useId();
  const button = useRef<HTMLButtonElement>(null);
  const list = useRef<HTMLDivElement>(null);

  useEffect(() => {
    if (!open) return;
    list.current?.querySelector<HTMLElement>('[role^=menuitem]')?.focus();
    const outside = (e: PointerEvent) => {
      if (!list.current?.contains(e.target as Node) && !button.current?.contains(e.target as Node)) setOpen(false);
    };
    document.addEventListener('pointerdown', outside);
    return () => document.removeEventListener('pointerdown', outside);
  }, [open]);

  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  const move = (e: React.KeyboardEvent) => {
    const items = [...(list.current?.querySelectorAll<HTMLElement>('[role^=menuitem]') ?? [])];
    const at = items.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[e.key];
    if (e.key === 'Escape' || e.key === 'Tab') {
      e.stopPropagation();
      if (e.key === 'Escape') e.preventDefault();
      return close();
    }
    if (to === undefined) return;
    e.preventDefault();
    items[(to + items.length) % items.length]?.focus();
  };

  return (
    <span className="meet-menu-anchor">
      <button ref={button} type="button" className={className} aria-haspopup="menu" aria-expanded={open} aria-controls={open ? id : undefined} aria-label={label} title={label} data-testid={testid} onClick={() => setOpen(!open)}>
        {children}
      </button>
      {open && (
        <div ref={list} id={id} className={`meet-menu ${align} ${side}`} role="menu" aria-label={label} onKeyDown={move}>
          {entries.map((entry) => (
            <button
              key={entry.label}
              type="button"
              role={entry.checked === undefined ? 'menuitem' : 'menuitemcheckbox'}
              aria-checked={entry.checked}
              tabIndex={-1}
              className={entry.danger ? 'danger' : ''}
              data-testid={entry.testid}
              onClick={() => {
                close();
                entry.do();
              }}
            >
              <Icon name={entry.icon} size={19} />
              <span>{entry.label}</span>
              {entry.checked && <Icon name="check" size={17} />}
            </button>
          ))}
        </div>
      )}
    </span>
  );
}
