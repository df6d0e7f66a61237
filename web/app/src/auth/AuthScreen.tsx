// SPDX-License-Identifier: Apache-2.0
import { useRef, useState, type FormEvent } from 'react';
import { Logo } from '../ui/Icon.tsx';
import { explain, signIn, signUp, TokenNeeded } from './auth.ts';
import { defaultHomeserver, type Session } from './session.ts';

interface Props {
  notice: string;
  onTyping: () => void;
  /** The password goes along, for setting up the encryption; it is stored nowhere. */
  onSession: (session: Session, password: string) => void;
}

type Mode = 'in' | 'up';

export function AuthScreen({ notice, onTyping, onSession }: Props) {
  const [mode, setMode] = useState<Mode>('in');
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [token, setToken] = useState('');
  const [askToken, setAskToken] = useState(false);
  const [shown, setShown] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState('');
  const tokenField = useRef<HTMLInputElement>(null);
  const server = defaultHomeserver();

  const change = (next: Mode) => {
    setMode(next);
    setError('');
    setAskToken(false);
  };

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (busy) return;
    const name = user.trim();
    if (!name || !password) {
      setError('Please fill in a user name and a password.');
      return;
    }
    setBusy(true);
    setError('');
    try {
      const session = mode === 'in' ? await signIn(server, name, password) : await signUp(server, name.toLowerCase(), password, token.trim());
      onSession(session, password);
    } catch (problem) {
      if (problem instanceof TokenNeeded) {
        setAskToken(true);
        requestAnimationFrame(() => tokenField.current?.focus());
      }
      setError(explain(problem));
      setBusy(false);
    }
  };

  return (
    <main className="auth">
      <section className="auth-card">
        <header className="auth-brand">
          <Logo size={44} />
          <h1>Trunkboard</h1>
          <p>{mode === 'in' ? 'Welcome back. Sign in to call and chat.' : 'Make an account on this server.'}</p>
        </header>

        {notice && mode === 'in' && (
          <p className="callout" role="status">
            {notice}
          </p>
        )}

        <form onSubmit={submit} onInput={onTyping} aria-busy={busy} noValidate>
          <div className="segmented" role="tablist" aria-label="Sign in or sign up">
            <button type="button" role="tab" aria-selected={mode === 'in'} data-testid="auth-tab-signin" onClick={() => change('in')}>
              Sign in
            </button>
            <button type="button" role="tab" aria-selected={mode === 'up'} data-testid="auth-tab-signup" onClick={() => change('up')}>
              Sign up
            </button>
          </div>

          <label className="field">
            <span>User name</span>
            <input
              data-testid="auth-username"
              name="username"
              autoComplete="username"
              autoCapitalize="none"
              autoCorrect="off"
              spellCheck={false}
              autoFocus
              value={user}
              onChange={(e) => setUser(e.target.value)}
              placeholder="ann"
            />
          </label>

          <label className="field">
            <span>Password</span>
            <span className="field-row">
              <input
                data-testid="auth-password"
                name="password"
                type={shown ? 'text' : 'password'}
                autoComplete={mode === 'in' ? 'current-password' : 'new-password'}
                value={password}
                onChange={(e) => setPassword(e.target.value)}
              />
              <button type="button" className="field-action" aria-pressed={shown} onClick={() => setShown(!shown)}>
                {shown ? 'Hide' : 'Show'}
              </button>
            </span>
          </label>

          {mode === 'up' && askToken && (
            <label className="field">
              <span>Registration token</span>
              <input ref={tokenField} data-testid="auth-token" autoComplete="off" spellCheck={false} value={token} onChange={(e) => setToken(e.target.value)} />
              <small>Whoever runs this server can give you one.</small>
            </label>
          )}

          {error && (
            <p className="callout callout-problem" role="alert" data-testid="auth-error">
              {error}
            </p>
          )}

          <button type="submit" className="button button-primary button-wide" disabled={busy} data-testid="auth-submit">
            {busy ? <span className="spinner" aria-label="Working" /> : mode === 'in' ? 'Sign in' : 'Make account'}
          </button>
        </form>
        <footer className="auth-foot">
          Homeserver <strong>{server.replace(/^https?:\/\//, '')}</strong>
        </footer>
      </section>
    </main>
  );
}
